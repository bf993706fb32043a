//! Keys from everywhere, and changing the keys of a data set.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tierstream_storage::testing::skip;
use tierstream_tests::{
    Run, Workplace, binary, tierstream, tierstream_as_nobody, tierstream_on_terminal, tierstream_with,
};

const PASSPHRASE: &str = "correct horse battery";

/// Writes a file that only its owner can read.
fn secret_file(workplace: &Workplace, name: &str, text: &str) -> String {
    std::fs::write(workplace.path(name), text).unwrap();
    std::fs::set_permissions(workplace.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    workplace.arg(name)
}

/// Makes a key file and returns its path.
fn new_key(workplace: &Workplace, name: &str, flags: &[&str]) -> String {
    let file = workplace.arg(name);
    tierstream(["keys", "new", &file].iter().chain(flags)).ok();
    file
}

/// What a key file holds that nobody may see: the digits of its root.
fn root_of(workplace: &Workplace, name: &str) -> String {
    let text = std::fs::read_to_string(workplace.path(name)).unwrap();
    text.lines().find_map(|line| line.strip_prefix("root: ")).unwrap().to_owned()
}

/// The run, which shows none of these secrets anywhere.
fn discreet(run: Run, secrets: &[&str]) -> Run {
    for secret in secrets {
        let part = &secret[..secret.len().min(12)];
        assert!(!run.stdout.contains(part) && !run.stderr.contains(part), "a secret was shown: {run:#?}");
    }
    run
}

fn verify(workplace: &Workplace, keys: &[&str]) -> Run {
    let set = workplace.arg("set");
    let flags = keys.iter().flat_map(|key| ["--key", key]);
    tierstream(["verify", &set].into_iter().chain(flags))
}

fn list(workplace: &Workplace) -> serde_json::Value {
    tierstream(["keys", "list", &workplace.arg("set"), "--json"]).ok().json()[0].clone()
}

#[test]
fn a_key_comes_from_a_file_a_variable_a_command_or_under_a_passphrase() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let (text, root) = (std::fs::read_to_string(&key).unwrap(), root_of(&workplace, "key"));
    let one_line = text.replace('\n', " ");
    let variables = [("JOB_KEY", text.as_str()), ("JOB_LINE", one_line.as_str())];
    let command = format!("cmd:echo noise >&2; cat '{key}'");
    for source in [key.as_str(), &format!("file:{key}"), "env:JOB_KEY", "env:JOB_LINE", &command] {
        for verb in ["verify", "inspect"] {
            let run = tierstream_with(&variables, [verb, &set, "--key", source, "-vv"]);
            discreet(run, &[&root]).ok();
        }
        let shown = tierstream_with(&variables, ["keys", "show", source]).ok();
        assert!(shown.stdout.contains("key `key` version 1"), "{shown:?}");
    }
    // Sealed from a variable, read with the file; and a ring of keys opens what any of them opens.
    let input = workplace.arg("input");
    let packed = tierstream_with(&variables, ["pack", &input, &workplace.arg("two"), "--key", "env:JOB_KEY"]);
    packed.ok();
    tierstream(["verify", &workplace.arg("two"), "--key", &key]).ok();
    let other = new_key(&workplace, "other", &[]);
    verify(&workplace, &[&other, &key]).ok();
    verify(&workplace, &[&other, &other]).failed(1, &["`key` version 1", "`other` version 1"]);

    // A passphrase: from a file, then from the environment.
    let phrase = secret_file(&workplace, "phrase", &format!("{PASSPHRASE}\n"));
    let locked = new_key(&workplace, "locked", &["--passphrase-file", &phrase]);
    let three = workplace.arg("three");
    tierstream(["pack", &input, &three, "--key", &locked, "--passphrase-file", &phrase]).ok();
    let run = tierstream_with(&[("TIERSTREAM_PASSPHRASE", PASSPHRASE)], ["verify", &three, "--key", &locked]);
    discreet(run, &[PASSPHRASE]).ok();
    let shown = tierstream(["keys", "show", &locked]).ok();
    assert!(shown.stdout.contains("passphrase (argon2id, 64 MiB, 3 passes, 4 lanes)"), "{shown:?}");
}

#[test]
fn bad_sources_are_named_and_show_no_secret() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let root = root_of(&workplace, "key");
    let damaged = format!("tierstream-key-v1 name: key version: 1 root: {}", &root[..62]);
    let long = format!("tierstream-key-v1 root: {}", root.repeat(100));
    let variables = [("DAMAGED", damaged.as_str()), ("LONG", &long), ("EMPTY", ""), ("ROOT_ONLY", &root)];
    for (source, words) in [
        ("env:NO_SUCH_VARIABLE", &["env:NO_SUCH_VARIABLE", "no such variable", "export"][..]),
        ("env:DAMAGED", &["env:DAMAGED", "`root`", "64 hexadecimal digits"]),
        ("env:LONG", &["env:LONG", "longer than 4096"]),
        ("env:EMPTY", &["env:EMPTY", "not a key"]),
        ("env:ROOT_ONLY", &["env:ROOT_ONLY", "not a key"]),
        ("cmd:cat \"$0.key\"; echo 'no login' >&2; exit 7", &["`cat ...`", "exit status: 7", "no login"]),
        ("cmd:echo $DAMAGED", &["cmd:echo", "64 hexadecimal digits"]),
        ("cmd:echo $LONG", &["`echo ...`", "more than the 4096 bytes"]),
        ("cmd:echo $ROOT_ONLY", &["cmd:echo", "not a key"]),
        ("cmd:true", &["`true ...`", "printed nothing"]),
        ("cmd:no-such-program", &["no-such-program", "not found"]),
    ] {
        for json in [None, Some("--json")] {
            let args = ["verify", &set, "--key", source].into_iter().chain(json);
            let run = discreet(tierstream_with(&variables, args), &[&root]).failed(1, words);
            assert!(run.stdout.is_empty(), "{run:?}");
        }
    }
    // What stands on a command line is seen by everybody: it is refused before anything is read.
    let typed = format!("tierstream-key-v1 name: key version: 1 root: {root}");
    discreet(tierstream(["verify", &set, "--key", &typed]), &[&root]).failed(1, &["seen by everybody"]);
    for bad in ["env:", "cmd: ", ""] {
        assert_eq!(tierstream(["verify", &set, "--key", bad]).code, 2, "{bad}");
    }
    tierstream(["verify", &set]).failed(2, &["--key"]);
    tierstream(["train", &set]).failed(2, &["--key"]);
    let both = ["train", &set, "--key", &key, "--daemon", "socket"];
    tierstream(both).failed(2, &["--daemon"]);

    for (name, words) in
        [("a/b", "1 to 64 of a-z"), ("", "key name of 0 bytes"), (&"x".repeat(65), "65 bytes")]
    {
        let run = tierstream(["keys", "new", &workplace.arg("new"), "--name", name]);
        run.failed(1, &[words, "--name"]);
    }
    tierstream(["keys", "new", &key]).failed(1, &["never overwritten"]);
    let nowhere = workplace.arg("nowhere");
    tierstream(["keys", "new", &workplace.arg("new"), "--rotate-from", &nowhere]).failed(1, &["nowhere"]);
    assert_eq!(workplace.names(), ["input", "key", "l2", "set"]);
}

#[test]
fn a_wrong_passphrase_is_told_from_a_damaged_file() {
    let workplace = Workplace::packed();
    let set = workplace.arg("set");
    let phrase = secret_file(&workplace, "phrase", PASSPHRASE);
    let locked = new_key(&workplace, "locked", &["--passphrase-file", &phrase]);
    let wrong = secret_file(&workplace, "wrong", "wrong horse battery");
    let base = ["verify", &set, "--key", &locked];
    let with = |file: &str| tierstream(base.into_iter().chain(["--passphrase-file", file]));
    with(&wrong).failed(1, &["locked", "wrong passphrase", "the key file is whole"]);
    // The right one, but of a key that is not the data set's.
    with(&phrase).failed(1, &["`key` version 1", "`locked` version 1"]);
    tierstream(base).failed(1, &["needs its passphrase", "no terminal", "--passphrase-file"]);
    with(&workplace.arg("none")).failed(1, &["none", "No such file"]);
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o640)).unwrap();
    with(&wrong).failed(1, &["wrong", "mode 0640"]);

    let text = std::fs::read_to_string(&locked).unwrap();
    let at = text.find("sealed: ").unwrap() + 8;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    secret_file(&workplace, "damaged", &format!("{}{digit}{}", &text[..at], &text[at + 1..]));
    let damaged = workplace.arg("damaged");
    let run = tierstream(["verify", &set, "--key", &damaged, "--passphrase-file", &phrase]);
    run.failed(1, &["damaged", "check does not match", "backup"]);
    for (file, text) in [("short", "1234567"), ("empty", ""), ("long", &"x".repeat(2000))] {
        let file = secret_file(&workplace, file, text);
        let new = workplace.arg("new");
        tierstream(["keys", "new", &new, "--passphrase-file", &file]).failed(1, &[]);
        assert!(!workplace.path("new").exists());
    }
}

#[test]
fn a_rotated_data_set_opens_with_the_new_key_alone_and_its_l2_stays_warm() {
    let workplace = Workplace::packed();
    let (set, key, l2) = (workplace.arg("set"), workplace.arg("key"), workplace.arg("l2"));
    let train = |key: &str| {
        let fixed = ["train", &set, "--key", key, "--l2", &l2, "--l2-size", "64M", "--l1-size", "128K"];
        let small =
            ["--steps", "60", "--batch-size", "64", "--layers", "1", "--d-model", "16", "--heads", "1"];
        tierstream(fixed.iter().chain(&small).chain(&["--json"]))
    };
    let before = train(&key).ok().json();
    let new = new_key(&workplace, "key2", &["--rotate-from", &key]);
    let rotate = || tierstream(["keys", "rotate", &set, "--key", &key, "--to", &new, "--json"]);
    let report = rotate().ok().json();
    let files = list(&workplace)["files"].clone();
    assert_eq!((&report["files"], &report["added"], &report["removed"]), (&files, &files, &files));
    assert_eq!((&report["to"]["name"], &report["to"]["version"]), (&"key".into(), &2.into()));
    assert_eq!((&report["from"][0]["version"], &report["error_count"]), (&1.into(), &0.into()));

    verify(&workplace, &[&new]).ok();
    verify(&workplace, &[&key]).failed(1, &["`key` version 2", "`key` version 1"]);
    train(&key).failed(1, &["`key` version 2"]);
    let after = train(&new).ok().json();
    assert_eq!(
        (&after["tiers"]["l3"]["hits"], &after["l2_dropped_blocks"]),
        (&0.into(), &0.into()),
        "{after}"
    );
    assert_eq!(after["loss_last"], before["loss_last"]);

    let again = rotate().ok().json();
    assert_eq!((&again["added"], &again["removed"]), (&0.into(), &0.into()));
    let said = tierstream(["keys", "rotate", &set, "--key", &new, "--to", &key]).ok();
    assert!(said.stdout.contains("took the place of"), "{said:?}");
    verify(&workplace, &[&key]).ok();
    tierstream(["keys", "rotate", &set, "--key", &key, "--to", &key])
        .failed(1, &["the same", "--rotate-from"]);
}

#[test]
fn a_data_set_can_be_read_while_its_key_is_rotated() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let new = new_key(&workplace, "key2", &["--rotate-from", &key]);
    let mut reader = Command::new(binary("tierstream"))
        .args(["train", &set, "--key", &key, "--key", &new, "--steps", "300", "--batch-size", "8"])
        .args(["--layers", "1", "--d-model", "16", "--heads", "1", "--l1-size", "128K", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut from, mut to) = (key, new);
    let mut rotations = 0;
    while reader.try_wait().unwrap().is_none() || rotations == 0 {
        tierstream(["keys", "rotate", &set, "--key", &from, "--to", &to]).ok();
        verify(&workplace, &[&to]).ok();
        std::mem::swap(&mut from, &mut to);
        rotations += 1;
    }
    assert!(reader.wait().unwrap().success(), "the reader failed beside {rotations} rotations");
}

#[test]
fn four_keys_fit_and_each_can_be_taken_away() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    for name in ["a", "b", "c"] {
        let add = new_key(&workplace, name, &[]);
        tierstream(["keys", "wrap", &set, "--key", &key, "--add", &add]).ok();
        verify(&workplace, &[&add]).ok();
    }
    let fifth = new_key(&workplace, "fifth", &[]);
    let files = list(&workplace)["files"].as_u64().unwrap();
    for verb in [["wrap", "--add"], ["rotate", "--to"]] {
        let run = tierstream(["keys", verb[0], &set, "--key", &key, verb[1], &fifth]);
        let run =
            run.failed(1, &["all 4 wrap slots are in use", "`b` version 1", "keys destroy", "manifest.tsm"]);
        assert!(run.stderr.contains(&format!("{files} of {files} files could not be changed")), "{run:?}");
        verify(&workplace, &[&key]).ok();
    }
    let stranger = tierstream(["keys", "wrap", &set, "--key", &fifth, "--add", &fifth]);
    stranger.failed(1, &["manifest.tsm", "`fifth` version 1"]);

    let seen = list(&workplace);
    let names: Vec<&str> =
        seen["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "key"]);
    assert!(seen["keys"].as_array().unwrap().iter().all(|key| key["files"] == files), "{seen}");
    tierstream(["keys", "destroy", &set, "--name", "b@2", "--yes"]).failed(1, &["no file is wrapped"]);
    tierstream(["keys", "destroy", &set, "--name", "b@1", "--key", &workplace.arg("c"), "--yes"]).ok();
    for (name, code) in [("a", 0), ("b", 1), ("c", 1), ("key", 0)] {
        assert_eq!(verify(&workplace, &[&workplace.arg(name)]).code, code, "{name}");
    }
    let text = tierstream(["keys", "list", &set, &key]).ok().stdout;
    assert!(text.contains("a version 1") && text.contains(&format!("opens {files}")), "{text}");
    assert!(text.contains(&format!("{key}: key key version 1")), "{text}");
}

#[test]
fn a_data_set_of_others_keeps_its_keys() {
    let workplace = Workplace::packed();
    let set = workplace.arg("set");
    for file in workplace.files("set") {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    std::fs::create_dir(workplace.path("own")).unwrap();
    std::fs::set_permissions(workplace.path("own"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (copy, new) = (workplace.path(""), workplace.arg("own/new"));
    tierstream_as_nobody(&copy, ["keys", "new", &new]).ok();
    let own_copy = format!("cmd:printf '%s' '{}'", std::fs::read_to_string(workplace.path("key")).unwrap());
    let run = tierstream_as_nobody(&copy, ["keys", "rotate", &set, "--key", &own_copy, "--to", &new]);
    discreet(run, &[&root_of(&workplace, "key")])
        .failed(1, &["Permission denied", "shard-00000.tss", "whoever may write", "the old key still opens"]);
    let run = tierstream_as_nobody(&copy, ["keys", "destroy", &set, "--name", "key", "--yes"]);
    run.failed(1, &["Permission denied", "still open under it"]);
    verify(&workplace, &[&workplace.arg("key")]).ok();
}

#[test]
fn destroying_the_last_key_asks_first_and_shreds() {
    let workplace = Workplace::packed();
    let (set, key) = (workplace.arg("set"), workplace.arg("key"));
    let destroy = ["keys", "destroy", &set, "--name", "key"];
    let warning = ["UNREADABLE FOR EVER", "copies and backups", "no terminal", "--yes"];
    tierstream(destroy).failed(1, &warning);
    tierstream(["keys", "destroy", &key]).failed(1, &["no terminal", "--yes"]);
    tierstream(["keys", "destroy", &set, "--yes"]).failed(1, &["which key?", "keys list"]);
    tierstream(["keys", "destroy", &key, "--name", "key", "--yes"]).failed(1, &["not a data set"]);
    tierstream(["keys", "destroy", &workplace.arg("input/0/text-00.txt"), "--yes"])
        .failed(1, &["text-00.txt"]);
    verify(&workplace, &[&key]).ok();

    match tierstream_on_terminal(&destroy, &[("data set's name (set)", "other\n")]) {
        None => skip("script", "there is no script(1) to make a terminal"),
        Some(refused) => {
            assert!(refused.code == 1 && refused.stdout.contains("is not the name"), "{refused:?}");
            verify(&workplace, &[&key]).ok();
        }
    }
    if tierstream_on_terminal(&destroy, &[("data set's name (set)", "set\n")]).is_none_or(|run| run.code != 0)
    {
        tierstream(destroy.iter().chain(&["--yes"])).ok();
    }
    verify(&workplace, &[&key]).failed(1, &["manifest.tsm", "it was shredded", "pack the data set again"]);
    let seen = list(&workplace);
    assert_eq!((&seen["shredded_files"], seen["keys"].as_array().unwrap().len()), (&seen["files"], 0));
    let text = tierstream(["inspect", &set]).ok().stdout;
    assert!(!text.contains("`key` version 1"), "{text}");

    let run = tierstream(["keys", "destroy", &key, "--yes"]);
    discreet(run, &[]).ok();
    assert!(!workplace.path("key").exists());
}

#[test]
fn a_passphrase_is_typed_without_echo() {
    let workplace = Workplace::new();
    let (locked, set, input) = (workplace.arg("locked"), workplace.arg("set"), workplace.arg("input"));
    let new = ["keys", "new", &locked, "--passphrase"];
    let line = format!("{PASSPHRASE}\n");
    let typed = [("for the new key: ", line.as_str()), ("the same again: ", "another\n")];
    let Some(refused) = tierstream_on_terminal(&new, &typed) else {
        return skip("script", "there is no script(1) to make a terminal");
    };
    assert!(refused.code == 1 && refused.stdout.contains("not the same"), "{refused:?}");
    let typed = [("for the new key: ", line.as_str()), ("the same again: ", &line)];
    discreet(tierstream_on_terminal(&new, &typed).unwrap(), &[PASSPHRASE]).ok();

    let pack = ["pack", &input, &set, "--key", &locked];
    let question = "passphrase for key `locked` version 1";
    let typed = [(question, "wrong\n"), (question, "wromg\x15wrong\n"), (question, &line)];
    let run = discreet(tierstream_on_terminal(&pack, &typed).unwrap(), &[PASSPHRASE]).ok();
    assert!(run.stdout.contains("wrong passphrase, try again"), "{run:?}");
    let verify = ["verify", &set, "--key", &locked];
    let typed = [(question, "a\n"), (question, "b\n"), (question, "c\n")];
    let run = tierstream_on_terminal(&verify, &typed).unwrap();
    assert!(run.code == 1 && run.stdout.contains("wrong passphrase for key"), "{run:?}");
    let run = tierstream_on_terminal(&verify, &[(question, "\x03")]).unwrap();
    assert_eq!(run.code, 130, "{run:?}");
}
