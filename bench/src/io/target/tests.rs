use super::*;
use crate::io::options::Arguments;

fn open(args: &[&str], number: usize) -> Result<Target> {
    let read = Arguments::read(args, &|_| None)?;
    Target::open(&Job::new(&read.jobs[0])?, number)
}

#[test]
fn a_missing_file_is_made_and_a_short_one_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let name = format!("--filename={}", path.display());
    let size = ["--size=2500000", "--bs=1000"];
    let target = open(&[&name, size[0], size[1]], 0).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(to_u64(whole.len()), align_up(2_500_000, ALIGN));
    assert_eq!(target.laid_out_bytes, to_u64(whole.len()));
    assert!(target.notes[0].starts_with("laid out 2.4 MiB of"), "{:?}", target.notes);
    assert!(whole.chunks_exact(4096).all(|unit| unit.iter().any(|byte| *byte != 0)));

    let again = open(&[&name, "--size=2500000", "--direct=1", "--bs=512"], 0).unwrap();
    assert_eq!(again.laid_out_bytes, 0);
    assert_eq!(open(&[&name], 0).unwrap().spans[0].bytes, to_u64(whole.len()), "without a size, all of it");

    // As a user's own file may be: its length no multiple of anything.
    std::fs::write(&path, &whole[..1_234_567]).unwrap();
    let extended = open(&[&name, size[0], "--randseed=9"], 0).unwrap();
    assert_eq!(extended.laid_out_bytes, to_u64(whole.len()) - 1_234_567);
    let now = std::fs::read(&path).unwrap();
    assert_eq!(now.len(), whole.len());
    assert!(now[..1_234_567] == whole[..1_234_567], "bytes that were there have changed");
    assert!(now[2_000_000..] != whole[2_000_000..], "another seed gives other bytes");
}

#[test]
fn what_cannot_be_measured_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("--filename={}", dir.path().join(name).display());
    let holes = dir.path().join("holes");
    std::fs::OpenOptions::new().write(true).create_new(true).open(&holes).unwrap().set_len(4 << 20).unwrap();
    assert!(open(&[&path("holes")], 0).unwrap().notes[0].contains("its holes"));
    let kind = |args: &[&str]| open(args, 0).unwrap_err().kind();
    assert_eq!(kind(&[&path("."), "--size=1m"]), ErrorKind::Misuse);
    assert_eq!(kind(&["--filename=/dev/null", "--size=1m"]), ErrorKind::Misuse);
    assert_eq!(kind(&[&path("nowhere/f"), "--size=1m"]), ErrorKind::Missing);
    assert_eq!(kind(&[&path("none")]), ErrorKind::Misuse);
    assert_eq!(kind(&[&path("none"), "--size=1m", "--allow_file_create=0"]), ErrorKind::Missing);
    assert_eq!(kind(&[&path("large"), "--size=100000t"]), ErrorKind::Full);
    assert!(!dir.path().join("large").exists());
    assert_eq!(kind(&[&path("holes"), "--size=1k"]), ErrorKind::Misuse);
}

#[test]
fn each_thread_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let place = format!("--directory={}", dir.path().display());
    let args = ["--name=n", &place, "--size=64k", "--numjobs=2", "--nrfiles=2"];
    let paths: Vec<PathBuf> = [0, 1]
        .iter()
        .flat_map(|number| {
            open(&args, *number).unwrap().files.iter().map(|file| file.path.clone()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(paths, ["n.0.0", "n.0.1", "n.1.0", "n.1.1"].map(|name| dir.path().join(name)));
    let all = format!("--opendir={}", dir.path().display());
    let target = open(&["--name=all", &all], 0).unwrap();
    assert_eq!((target.files.len(), target.pass_bytes), (4, 128 << 10));
    let shifted = open(&[args[0], args[1], args[2], "--offset_increment=4k", "--offset=8k"], 1).unwrap();
    assert_eq!(shifted.spans[0].offset, 12 << 10);
}
