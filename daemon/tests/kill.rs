#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
//! kill -9 of clients and of the daemon, in separate processes, in loops: the survivors go on, with the right bytes, and
//! nothing of the dead is left.
//!
//! This binary starts itself again for each process; what it is to be comes in the environment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tierstream_daemon::{AuthConfig, Client, Server, ServerConfig};
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey, read_key_file, write_key_file};
use tierstream_storage::testing::{Random, announce_seed};
use tierstream_storage::{DataSetWriter, RangeRead, RangeSource, Store, StoreConfig, WriteContext};

const BLOCK: u32 = 8192;
const BYTES: usize = 400_000;
const ROLE: &str = "TIERSTREAM_KILL_ROLE";
const PLACE: &str = "TIERSTREAM_KILL_PLACE";
const KILLS: u32 = 8;
/// Leases of a hoarder: more than the reader holds by itself.
const HOARD: usize = 10;

fn payload() -> Vec<u8> {
    let mut payload = vec![0; BYTES];
    Random::new(99).fill(&mut payload);
    payload
}

fn prepare(dir: &Path) {
    let key = RootKey::random("kill").unwrap();
    write_key_file(&dir.join("key"), &key).unwrap();
    let keys: Arc<dyn KeyProvider> = Arc::new(key);
    let context = WriteContext::new(&Default::default(), BLOCK, 1).unwrap();
    let path = dir.join("set");
    let writer =
        DataSetWriter::create(&context, keys, &path, false, Cipher::Sm4Gcm, false, BLOCK, 1).unwrap();
    let mut shard = writer.shard(0).unwrap();
    shard.write(&payload()).unwrap();
    let shard = writer.finish_shard(0, shard, 1, Vec::new()).unwrap();
    writer.publish(serde_json::json!({"fields": []}), serde_json::Value::Null, vec![shard]).unwrap();
}

/// Kills its process when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: &str, dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process", "--nocapture"]).env(ROLE, role).env(PLACE, dir);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL, and the wait without which it stays a zombie.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the only way to tell a process of this test what it is")]
fn process() {
    let Some(dir) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    match std::env::var(ROLE).unwrap().as_str() {
        "daemon" => {
            let keys: Arc<dyn KeyProvider> = Arc::new(read_key_file(&dir.join("key")).unwrap());
            let config = StoreConfig {
                block_bytes: BLOCK,
                l1_bytes: 64 * 8192,
                share_l1: true,
                ..StoreConfig::default()
            };
            let config_of_server = ServerConfig {
                socket: dir.join("socket"),
                roots: vec![dir.clone()],
                clients_max: 64,
                auth: AuthConfig::default(),
                http: None,
            };
            let server = Server::bind(Store::open(config, keys).unwrap(), &config_of_server).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    loop {
                        // Under another name first: whoever reads sees all of it.
                        for (name, count) in [("leases", server.leases()), ("clients", server.clients())] {
                            std::fs::write(dir.join("new"), count.to_string()).unwrap();
                            std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
                        }
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                });
                server.run().unwrap();
            });
        }
        // Holds leases until it is killed.
        "hoarder" => {
            let client = Client::connect(&dir.join("socket")).unwrap();
            let set = client.open_data_set(dir.join("set").to_str().unwrap()).unwrap();
            let mut held = Vec::new();
            for block in 0..u32::try_from(HOARD).unwrap() {
                held.push(client.lease(&set, 0, block).unwrap());
            }
            loop {
                std::thread::park_timeout(Duration::from_secs(1));
            }
        }
        role => panic!("{role}"),
    }
}

fn said(dir: &Path, what: &str) -> usize {
    std::fs::read_to_string(dir.join(what)).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
}

#[expect(clippy::disallowed_methods, reason = "a test that waits for another process")]
fn wait_until(what: &str, limit: Duration, done: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "{what} took longer than {limit:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    began.elapsed()
}

#[test]
fn the_dead_leave_nothing_and_the_living_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let payload = payload();
    let limit = Duration::from_secs(60);
    let mut daemon = Process::start("daemon", dir);
    wait_until("the daemon's start", limit, || Client::connect(&dir.join("socket")).is_ok());
    let client = Client::connect(&dir.join("socket")).unwrap();
    let set = client.open_data_set(dir.join("set").to_str().unwrap()).unwrap();
    let seed = 4;
    announce_seed("kill", seed);
    let mut random = Random::new(seed);
    let mut read = || {
        let start = usize::try_from(random.below(u64::try_from(BYTES - 50_000).unwrap())).unwrap();
        let mut to = vec![0; 50_000];
        let range = u64::try_from(start).unwrap()..u64::try_from(start + to.len()).unwrap();
        client.read(&set, &mut [RangeRead { shard: 0, range, to: &mut to }]).unwrap();
        assert!(to == payload[start..start + to.len()], "wrong bytes at {start}");
    };
    read();
    for _ in 0..KILLS {
        let hoarder = Process::start("hoarder", dir);
        wait_until("a hoarder's leases", limit, || said(dir, "leases") >= HOARD && said(dir, "clients") == 2);
        drop(hoarder);
        wait_until("the end of a dead client's leases", limit, || {
            said(dir, "leases") < HOARD && said(dir, "clients") == 1
        });
        read();
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        let lease = client.lease(&set, 0, 7).unwrap();
        daemon = {
            drop(daemon);
            Process::start("daemon", dir)
        };
        // The memory of a daemon that was killed is still what it was.
        let capacity = usize::try_from(tierstream_storage::format::capacity(BLOCK)).unwrap();
        assert!(lease[..] == payload[7 * capacity..8 * capacity]);
        #[expect(clippy::disallowed_methods, reason = "how long a client was held up is what this is about")]
        let began = Instant::now();
        read();
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest first read after a kill of the daemon, its start included: {slowest:?}");
    drop(daemon);
}
