use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::format::SectionType;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::testing::{Random, announce_seed};
use tierstream_storage::{
    DataSetInfo, DataSetWriter, ErrorKind, RangeRead, RangeSource, Store, StoreConfig, WriteContext,
};

use super::*;

const BLOCK: u32 = 8192;
const NAMES: SectionType = SectionType(18);

/// A running server over a data set of one shard.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) payload: Vec<u8>,
    handle: ServerHandle,
    server: Option<Arc<Server>>,
    thread: Option<std::thread::JoinHandle<tierstream_storage::Result<()>>>,
}

fn fixture(clients_max: usize) -> Fixture {
    fixture_with(clients_max, None, |_| AuthConfig::default())
}

fn fixture_with(
    clients_max: usize,
    http: Option<std::net::SocketAddr>,
    auth: impl FnOnce(&std::path::Path) -> AuthConfig,
) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("daemon-test").unwrap());
    let mut payload = vec![0; 300_000];
    Random::new(2).fill(&mut payload);
    for name in ["served/set", "other/set"] {
        let path = dir.path().join(name);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let context = WriteContext::new(&Default::default(), BLOCK, 1).unwrap();
        let writer =
            DataSetWriter::create(&context, Arc::clone(&keys), &path, false, Cipher::Sm4Gcm, false, BLOCK, 1)
                .unwrap();
        let mut shard = writer.shard(0).unwrap();
        shard.write(&payload).unwrap();
        let shard = writer.finish_shard(0, shard, 1, vec![(NAMES, vec![9; 5000])]).unwrap();
        writer.publish(serde_json::json!({"fields": []}), serde_json::Value::Null, vec![shard]).unwrap();
    }
    let store = Store::open(
        StoreConfig { block_bytes: BLOCK, share_l1: true, l1_bytes: 64 * 8192, ..StoreConfig::default() },
        keys,
    )
    .unwrap();
    let config = ServerConfig {
        socket: dir.path().join("socket"),
        roots: vec![dir.path().join("served")],
        clients_max,
        auth: auth(dir.path()),
        http,
    };
    let server = Arc::new(Server::bind(store, &config).unwrap());
    let handle = server.handle();
    let running = Arc::clone(&server);
    let thread = Some(std::thread::spawn(move || running.run()));
    Fixture { dir, payload, handle, server: Some(server), thread }
}

impl Fixture {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn http(&self) -> std::net::SocketAddr {
        self.server().http().unwrap()
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn open(&self, client: &Client) -> Arc<DataSetInfo> {
        client.open_data_set(self.dir.path().join("served/set").to_str().unwrap()).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}

#[test]
fn a_client_reads_what_the_store_holds() {
    let fixture = fixture(8);
    let client = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&client);
    assert_eq!((set.records, set.cipher.as_str()), (1, "sm4-gcm"));
    let names = client.section(&set, 0, NAMES).unwrap().unwrap();
    assert!(names.len() == 5000 && names.iter().all(|byte| *byte == 9));
    assert!(client.section(&set, 0, SectionType(77)).unwrap().is_none());

    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (client, set, payload) = (&client, &set, &fixture.payload);
            scope.spawn(move || {
                announce_seed("a_client_reads", seed);
                let mut random = Random::new(seed);
                for _ in 0..20 {
                    let at: Vec<(usize, usize)> = (0..random.below(20))
                        .map(|_| (random.below(290_000), random.below(10_000)))
                        .map(|(start, len)| (usize::try_from(start).unwrap(), usize::try_from(len).unwrap()))
                        .collect();
                    let mut buffers: Vec<Vec<u8>> = at.iter().map(|(_, len)| vec![0; *len]).collect();
                    let mut reads: Vec<RangeRead<'_>> = at
                        .iter()
                        .zip(&mut buffers)
                        .map(|((start, len), to)| {
                            let range = u64::try_from(*start).unwrap()..u64::try_from(start + len).unwrap();
                            RangeRead { shard: 0, range, to }
                        })
                        .collect();
                    client.read(set, &mut reads).unwrap();
                    for ((start, len), found) in at.iter().zip(&buffers) {
                        assert!(payload[*start..start + len] == found[..], "seed {seed}");
                    }
                }
            });
        }
    });
    assert!(client.metrics().l1.hits > 0);
}

#[test]
fn requests_that_are_not_allowed_are_answered_with_the_reason() {
    let fixture = fixture(8);
    let client = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&client);
    let other = fixture.dir.path().join("other/set");
    let sneaky = fixture.dir.path().join("served/../other/set");
    for path in [other, sneaky] {
        let error = client.open_data_set(path.to_str().unwrap()).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Denied && error.hint_text().unwrap().contains("--root"),
            "{error}"
        );
    }
    assert_eq!(client.open_data_set("/nowhere").unwrap_err().kind(), ErrorKind::Denied);
    let none = fixture.dir.path().join("served/none");
    assert_eq!(client.open_data_set(none.to_str().unwrap()).unwrap_err().kind(), ErrorKind::Missing);
    let mut to = [0; 4];
    let stranger = DataSetInfo { handle: 99, ..(*set).clone() };
    for (set, shard, range) in [(&*set, 0, 299_998..300_002), (&*set, 5, 0..4), (&stranger, 0, 0..4)] {
        let error = client.read(set, &mut [RangeRead { shard, range, to: &mut to }]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }
    assert_eq!(client.section(&set, 5, NAMES).unwrap_err().kind(), ErrorKind::Misuse);
    // The connection is still good.
    client.read(&set, &mut [RangeRead { shard: 0, range: 0..4, to: &mut to }]).unwrap();
    assert_eq!(to, fixture.payload[..4]);
}

#[test]
fn too_many_clients_are_turned_away_and_room_comes_back() {
    let fixture = fixture(2);
    let first = Client::connect(&fixture.socket()).unwrap();
    let _second = Client::connect(&fixture.socket()).unwrap();
    let third = Client::connect(&fixture.socket()).unwrap_err();
    assert_eq!(third.kind(), ErrorKind::Full, "{third}");
    drop(first);
    // The server notices a moment later.
    let mut tries = 0;
    while Client::connect(&fixture.socket()).is_err() {
        tries += 1;
        assert!(tries < 100_000);
    }
}

#[test]
fn hostile_clients_harm_only_themselves() {
    let fixture = fixture(64);
    let good = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&good);
    let hello = [&[14_u8, 0, 0, 0, 0][..], br#"{"version":2}"#].concat();
    let frames: Vec<Vec<u8>> = vec![
        vec![0; 4],
        vec![0xff; 64],
        vec![5, 0, 0, 0, 77, 1, 2, 3, 4],
        vec![200, 0, 0, 0, 1, b'{'],
        [&hello[..], &[3, 0, 0, 0, 3, b'{', b'}']].concat(),
        [&hello[..], &[40, 0, 0, 0, 3], br#"{"handle":0,"ranges":[[0,0,999999999]]}"#].concat(),
        br"GET / HTTP/1.1".to_vec(),
    ];
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut stream = UnixStream::connect(fixture.socket()).unwrap();
        let mut frame = frames[usize::try_from(seed).unwrap() % frames.len()].clone();
        if seed > 20 {
            random.fill(&mut frame);
        }
        let _hung_up = stream.write_all(&frame);
        if random.one_in(2) {
            let _hung_up = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _hung_up = stream.read_to_end(&mut answer);
            assert!(answer.len() < 10_000);
        }
    }
    let mut to = [0; 100];
    good.read(&set, &mut [RangeRead { shard: 0, range: 1000..1100, to: &mut to }]).unwrap();
    assert_eq!(to[..], fixture.payload[1000..1100]);
}

#[test]
fn a_second_server_is_refused_and_a_dead_ones_socket_is_taken_over() {
    let fixture = fixture(2);
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("k").unwrap());
    let store = Store::open(StoreConfig::default(), keys).unwrap();
    let config = |socket: PathBuf, roots| ServerConfig {
        socket,
        roots,
        clients_max: 1,
        auth: AuthConfig::default(),
        http: None,
    };
    let roots = vec![fixture.dir.path().to_owned()];
    let error = Server::bind(store.clone(), &config(fixture.socket(), roots.clone())).unwrap_err();
    assert!(error.to_string().contains("another daemon"), "{error}");
    assert!(Server::bind(store.clone(), &config(fixture.socket(), vec![])).is_err());

    let dead = fixture.dir.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(dead.exists());
    let server = Server::bind(store, &config(dead.clone(), roots)).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&dead).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    let error = Client::connect(&dead).unwrap_err();
    assert!(error.kind() == ErrorKind::Missing && error.hint_text().unwrap().contains("serve"), "{error}");
}

#[test]
fn stopping_ends_idle_clients_with_a_clear_error() {
    let mut fixture = fixture(4);
    let config =
        ClientConfig { reconnect: Duration::ZERO, ..ClientConfig::new(fixture.socket().to_str().unwrap()) };
    let client = Client::connect_with(config).unwrap();
    let set = fixture.open(&client);
    fixture.handle.stop();
    fixture.thread.take().unwrap().join().unwrap().unwrap();
    let error = client.read(&set, &mut [RangeRead { shard: 0, range: 0..4, to: &mut [0; 4] }]).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Closed && error.hint_text().unwrap().contains("start it again"),
        "{error}"
    );
    fixture.thread = Some(std::thread::spawn(|| Ok(())));
}

#[test]
fn leases_are_the_stores_bytes_and_end_with_the_client() {
    let fixture = fixture(8);
    let client = Client::connect(&fixture.socket()).unwrap();
    assert!(client.leases_blocks());
    let set = fixture.open(&client);
    let capacity = usize::try_from(tierstream_storage::format::capacity(BLOCK)).unwrap();
    let blocks: Vec<(usize, u32)> = (0..10).map(|block| (0, block)).collect();
    let leases = client.lease_all(&set, &blocks).unwrap();
    for (lease, bytes) in leases.iter().zip(fixture.payload.chunks(capacity)) {
        assert!(lease[..] == *bytes);
    }
    assert_eq!(fixture.server().leases(), 10);
    // A client that goes away with leases in its hands.
    let other = Client::connect(&fixture.socket()).unwrap();
    let theirs = fixture.open(&other);
    let held = other.lease_all(&theirs, &blocks).unwrap();
    assert_eq!(fixture.server().leases(), 20);
    drop(other);
    drop(held);
    wait_until(|| fixture.server().leases() == 10);
    // Memory stays readable when the daemon has ended: nobody writes it any more.
    fixture.handle.stop();
    wait_until(|| fixture.server().clients() == 0);
    assert!(leases[9][..] == fixture.payload[9 * capacity..10 * capacity]);
}

#[test]
fn who_hoards_meets_a_quota_and_others_still_read() {
    let fixture = fixture(8);
    let hoarder = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&hoarder);
    let mut held = Vec::new();
    for block in 0..36 {
        match hoarder.lease(&set, 0, block) {
            Ok(lease) => held.push(lease),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                break;
            }
        }
    }
    assert_eq!(held.len(), 32, "half of 64 blocks");
    let other = Client::connect(&fixture.socket()).unwrap();
    let theirs = fixture.open(&other);
    let mut to = vec![0; fixture.payload.len()];
    let range = 0..300_000;
    other.read(&theirs, &mut [RangeRead { shard: 0, range: range.clone(), to: &mut to }]).unwrap();
    assert!(to == fixture.payload);
    // The hoarder reads too: copies, where it gets no lease.
    hoarder.read(&set, &mut [RangeRead { shard: 0, range, to: &mut to }]).unwrap();
    assert!(to == fixture.payload);
}

#[test]
fn what_a_client_does_to_its_ring_ends_its_own_connection() {
    use crate::local::ring::{ClientEnd, LeaseId, Submission, WORDS};
    use crate::local::shm::SharedWords;
    let fixture = fixture(64);
    let good = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&good);
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut stream = UnixStream::connect(fixture.socket()).unwrap();
        crate::protocol::write_request(
            &mut stream,
            crate::protocol::Verb::Hello,
            &crate::protocol::Hello { version: crate::protocol::VERSION },
        )
        .unwrap();
        crate::protocol::read_response(&mut stream).unwrap();
        crate::protocol::write_request(&mut stream, crate::protocol::Verb::Share, &()).unwrap();
        let (_, fds) = crate::local::fds::receive(&stream, &mut [0; 1000]).unwrap();
        let words = SharedWords::map(&fds[1], WORDS).unwrap();
        if seed % 2 == 0 {
            for word in 0..WORDS {
                words.at(word).store(random.next_u64(), std::sync::atomic::Ordering::SeqCst);
            }
        } else {
            let mut ring = ClientEnd::new(words);
            assert!(ring.submit(Submission::Release(LeaseId { slot: 0, generation: 7 })));
        }
        crate::local::fds::ring_bell(&fds[2]);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(answer.len() < 1000);
    }
    let mut to = [0; 100];
    good.read(&set, &mut [RangeRead { shard: 0, range: 1000..1100, to: &mut to }]).unwrap();
    assert_eq!(to[..], fixture.payload[1000..1100]);
    wait_until(|| fixture.server().clients() == 1);
}

fn policy_of(roles: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!(r#"{{"roles":{{"here":[{roles}]}},"identities":{{"uid:{uid}":["here"],"user:ada":["here"]}}}}"#)
}

pub(crate) fn with_policy_and_http(roles: &str) -> Fixture {
    made_with_policy(roles, Some(([127, 0, 0, 1], 0).into()))
}

fn with_policy(roles: &str) -> Fixture {
    made_with_policy(roles, None)
}

/// A token of a user that is made for it.
pub(crate) fn person(at: &Fixture) -> Token {
    let client = Client::connect(&at.socket()).unwrap();
    let uri = client.add_user("ada").unwrap();
    let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let secret = crate::auth::text::of_base32(secret).unwrap();
    let now = crate::auth::wall::WallClock::seconds(&crate::auth::wall::SystemWall);
    let code = crate::auth::totp::code(Default::default(), &secret, now / 30, 6);
    let token = client.login("ada", &code).unwrap();
    assert!(client.login("ada", &code).is_err(), "replayed");
    assert!(token.expires >= now + 300 && token.expires <= now + 901);
    token
}

fn made_with_policy(roles: &str, http: Option<std::net::SocketAddr>) -> Fixture {
    fixture_with(8, http, |dir| {
        let policy = dir.join("policy.json");
        std::fs::write(&policy, policy_of(roles)).unwrap();
        AuthConfig { policy: Some(policy), state: Some(dir.join("state")) }
    })
}

#[test]
fn each_right_allows_its_verbs_and_no_others() {
    const RIGHTS: [&str; 5] = ["read", "list", "announce", "admin", "keys"];
    // Which right each verb wants; the one that needs a set open has `read` beside it.
    type Act = fn(&Client, &Fixture) -> tierstream_storage::Result<()>;
    let acts: [(&str, Act); 8] = [
        ("read", |client, at| {
            let set = client.open_data_set(at.dir.path().join("served/set").to_str().unwrap())?;
            let mut to = [0; 9];
            client.read(&set, &mut [RangeRead { shard: 0, range: 1..10, to: &mut to }])?;
            assert_eq!(to[..], at.payload[1..10]);
            client.section(&set, 0, NAMES).map(drop)
        }),
        ("read", |client, _| client.open_data_set("set").map(drop)),
        ("list", |client, _| match client.list()?.as_slice() {
            [name] if name == "set" => Ok(()),
            _ => Err(tierstream_storage::Error::new(ErrorKind::Denied, "list", "nothing to be seen")),
        }),
        ("announce", |client, _| client.announce(&*client.open_data_set("set")?, &[(0, 0..300_000)])),
        ("admin", |client, _| client.users().map(drop)),
        ("admin", |client, _| client.add_user("eve").map(drop)),
        ("admin", |client, _| client.revoke("user:eve").map(drop)),
        ("keys", |client, _| client.rotate_keys().map(drop)),
    ];
    for given in RIGHTS {
        let also = if given == "announce" { r#", "read""# } else { "" };
        let at = with_policy(&format!(r#"{{"rights":["{given}"{also}],"data_sets":["**"]}}"#));
        let client = Client::connect(&at.socket()).unwrap();
        assert_eq!(client.leases_blocks(), given == "read" || given == "announce");
        for (number, (wanted, act)) in acts.iter().enumerate() {
            let outcome = act(&client, &at);
            let expected = *wanted == given || given == "announce" && *wanted == "read";
            assert_eq!(outcome.is_ok(), expected, "{given}: act {number}, {outcome:?}");
            if let Err(error) = outcome {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            }
        }
        let log = at.dir.path().join("state/audit.jsonl");
        assert!(crate::verify_audit(&log).unwrap().lines >= 7);
    }
}

#[test]
fn a_role_for_some_data_sets_gives_copies_of_those_alone() {
    let at = with_policy(r#"{"rights":["read"],"data_sets":["set"]}"#);
    let client = Client::connect(&at.socket()).unwrap();
    assert!(!client.leases_blocks(), "L1 holds the others' data too");
    let set = at.open(&client);
    let mut to = vec![0; 300_000];
    client.read(&set, &mut [RangeRead { shard: 0, range: 0..300_000, to: &mut to }]).unwrap();
    assert!(to == at.payload);
    for location in ["other", "none"] {
        assert_eq!(client.open_data_set(location).unwrap_err().kind(), ErrorKind::Denied, "no oracle");
    }
    // The policy changes while the client has the set open, then its ring.
    let policy = at.dir.path().join("policy.json");
    std::fs::write(&policy, policy_of(r#"{"rights":["read"],"data_sets":["**"]}"#)).unwrap();
    wait_until(|| Client::connect(&at.socket()).unwrap().leases_blocks());
    let leasing = Client::connect(&at.socket()).unwrap();
    let other = at.open(&leasing);
    drop(leasing.lease(&other, 0, 1).unwrap());
    std::fs::write(&policy, policy_of(r#"{"rights":["list"],"data_sets":["**"]}"#)).unwrap();
    let mut byte = [0];
    wait_until(|| client.read(&set, &mut [RangeRead { shard: 0, range: 0..1, to: &mut [0] }]).is_err());
    wait_until(|| leasing.lease(&other, 0, 2).is_err());
    let refused = leasing.read(&other, &mut [RangeRead { shard: 0, range: 0..1, to: &mut byte }]);
    assert!(refused.is_err(), "{refused:?}");
    wait_until(|| at.server().leases() == 0);
}

#[test]
fn a_person_with_a_token_is_somebody_else() {
    let at = with_policy(r#"{"rights":["read","admin"],"data_sets":["**"]}"#);
    let client = Client::connect(&at.socket()).unwrap();
    let token = person(&at);
    assert!(!format!("{token:?}").contains(&token.token));
    assert!(client.whoami().unwrap().identity.starts_with("uid:"));
    let whoami = client.present(&token.token).unwrap();
    assert_eq!((whoami.identity.as_str(), whoami.expires), ("user:ada", Some(token.expires)));
    let again = client.renew(&token.token).unwrap();
    assert_eq!(client.logins().unwrap().len(), 1);
    assert!(client.present("ts1.forged.e30.AAAA").is_err());
    assert_eq!(client.revoke("user:ada").unwrap(), 1);
    for error in [client.users().unwrap_err(), client.present(&again.token).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[test]
fn a_client_goes_on_when_its_daemon_is_started_again() {
    let mut fixture = fixture(8);
    let client = Client::connect(&fixture.socket()).unwrap();
    let set = fixture.open(&client);
    let lease = client.lease(&set, 0, 3).unwrap();
    fixture.handle.stop();
    fixture.thread.take().unwrap().join().unwrap().unwrap();
    let store = fixture.server().store();
    fixture.server = None;
    let config = ServerConfig {
        socket: fixture.socket(),
        roots: vec![fixture.dir.path().join("served")],
        clients_max: 8,
        auth: AuthConfig::default(),
        http: None,
    };
    fixture.server = Some(Arc::new(Server::bind(store, &config).unwrap()));
    fixture.handle = fixture.server().handle();
    let running = Arc::clone(fixture.server.as_ref().unwrap());
    fixture.thread = Some(std::thread::spawn(move || running.run()));
    let mut to = vec![0; 300_000];
    client.read(&set, &mut [RangeRead { shard: 0, range: 0..300_000, to: &mut to }]).unwrap();
    assert!(to == fixture.payload);
    let capacity = usize::try_from(tierstream_storage::format::capacity(BLOCK)).unwrap();
    assert!(lease[..] == fixture.payload[3 * capacity..4 * capacity]);
    // The old lease ends nothing of the new daemon's.
    let held = fixture.server().leases();
    drop(lease);
    client.lease(&set, 0, 4).unwrap();
    assert!(fixture.server().leases() >= held);
}

/// Other threads and processes notice a moment later.
fn wait_until(done: impl Fn() -> bool) {
    let mut tries = 0;
    while !done() {
        tries += 1;
        assert!(tries < 10_000, "waited for 10 s");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
