//! Objects as a user of the command meets them.

use tierstream_storage::testing::Random;
use tierstream_tests::{Run, Workplace, flip_byte, tierstream, tierstream_reading};

/// Runs a verb on objects with the workplace's tiers and key.
fn objects(workplace: &Workplace, args: &[&str]) -> Run {
    let (l2, l3, key) = (workplace.arg("l2"), workplace.arg("l3"), workplace.arg("key"));
    let tiers = ["--l3", &l3, "--l2", &l2, "--l2-size", "64M", "--key", &key, "--block-size", "16K"];
    tierstream(args.iter().chain(&tiers))
}

fn workplace() -> Workplace {
    let workplace = Workplace::new();
    std::fs::create_dir(workplace.path("l3")).unwrap();
    workplace
}

/// A safetensors file of two tensors, with odd white space in its header.
fn safetensors() -> Vec<u8> {
    let header =
        br#"{ "b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, "a":{"dtype":"U8","shape":[5],
 "data_offsets":[24,29]}, "__metadata__":{"format":"pt"} }   "#;
    let mut file = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend(0..29);
    file
}

#[test]
fn an_object_is_put_listed_read_and_removed() {
    let workplace = workplace();
    let (input, output) = (workplace.arg("input/0/text-00.txt"), workplace.arg("out"));
    let put =
        objects(&workplace, &["put", &input, "runs/1/log", "--metadata", "step=7", "--no-drain", "--json"])
            .ok();
    assert_eq!(put.json()["on_l3"], false);
    let listed = objects(&workplace, &["ls", "runs/", "--json"]).ok().json();
    assert_eq!(listed["objects"][0]["name"], "runs/1/log");
    assert_eq!(
        (&listed["status"]["dirty_objects"], &listed["objects"][0]["on_l3"]),
        (&1.into(), &false.into())
    );
    let doctor = tierstream(["doctor", &workplace.arg("l2"), "--json"]).ok().json();
    assert_eq!(doctor["directories"][0]["dirty_objects"], 1);
    assert!(doctor["directories"][0]["dirty_bytes"].as_u64().unwrap() > 4096);

    // The next put drains both.
    objects(&workplace, &["put", &input, "runs/2/log"]).ok();
    let listed = objects(&workplace, &["ls", "--json"]).ok().json();
    assert_eq!(
        (&listed["status"]["dirty_bytes"], listed["objects"].as_array().unwrap().len()),
        (&0.into(), 2)
    );
    objects(&workplace, &["get", "runs/1/log", &output]).ok();
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&input).unwrap());
    let piped = objects(&workplace, &["get", "runs/2/log", "-"]).ok();
    assert_eq!(piped.stdout.as_bytes(), std::fs::read(&input).unwrap());
    assert!(!workplace.shows_secret("l2") && !workplace.shows_secret("l3"), "plain text on disk");

    objects(&workplace, &["rm", "runs/1/log"]).ok();
    objects(&workplace, &["rm", "runs/1/log"]).failed(1, &["no object", "--force"]);
    objects(&workplace, &["rm", "--force", "runs/1/log"]).ok();
    let missing = objects(&workplace, &["get", "runs/1/log", &output]);
    missing.failed(1, &["no object `runs/1/log`", "hint:"]);
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&input).unwrap(), "what was there stays");
    assert!(objects(&workplace, &["ls"]).ok().stdout.contains("runs/2/log"));
}

#[test]
fn a_safetensors_file_comes_back_bit_for_bit() {
    let workplace = workplace();
    let (input, output) = (workplace.arg("in.safetensors"), workplace.arg("out.safetensors"));
    std::fs::write(&input, safetensors()).unwrap();
    objects(&workplace, &["tensors", "import", &input, "model", "--codec", "zstd"]).ok();
    objects(&workplace, &["tensors", "export", "model", &output]).ok();
    assert_eq!(std::fs::read(&output).unwrap(), safetensors());
    let listed = objects(&workplace, &["tensors", "ls", "model", "--json"]).ok().json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["dtype"], &listed[1]["bytes"]),
        (&"b".into(), &"F32".into(), &5.into())
    );

    let mut damaged = safetensors();
    damaged.pop();
    std::fs::write(&input, damaged).unwrap();
    objects(&workplace, &["tensors", "import", &input, "model"])
        .failed(1, &["in.safetensors", "its header says"]);
    objects(&workplace, &["put", &workplace.arg("in.safetensors"), "bytes"]).ok();
    objects(&workplace, &["tensors", "export", "bytes", &output]).failed(1, &["no set of tensors", "hint:"]);
    assert_eq!(std::fs::read(&output).unwrap(), safetensors(), "a failed export leaves what was there");
}

#[test]
fn what_is_wrong_with_objects_is_said() {
    let workplace = workplace();
    let input = workplace.arg("input/0/text-00.txt");
    objects(&workplace, &["put", &input, "x"]).ok();
    // L2 thrown away: nothing was dirty, nothing is lost, and it is told.
    std::fs::remove_dir_all(workplace.path("l2")).unwrap();
    std::fs::create_dir(workplace.path("l2")).unwrap();
    let listed = objects(&workplace, &["ls", "--json"]).ok();
    assert!(listed.stderr.contains("1 found") && listed.json()["recovery"]["adopted"] == 1, "{listed:?}");
    let file =
        workplace.files("l3/objects").into_iter().find(|path| path.extension().is_some_and(|of| of == "tso"));
    flip_byte(&file.unwrap(), 5000);
    let output = workplace.arg("out");
    objects(&workplace, &["get", "x", &output]).failed(1, &["tag mismatch", "l3/objects", "hint:"]);
    assert!(!workplace.path("out").exists(), "half a file");
    objects(&workplace, &["put", &workplace.arg("nowhere"), "x"]).failed(1, &["nowhere", "No such file"]);
    objects(&workplace, &["put", &input, ""]).failed(1, &["a name of 0 bytes"]);
    objects(&workplace, &["put", &input, "x", "--metadata", "novalue"]).failed(2, &["KEY=VALUE"]);
    let key = workplace.arg("key");
    tierstream(["ls", "--l3", &workplace.arg("missing"), "--key", &key]).failed(1, &["missing", "mkdir"]);
}

#[test]
fn an_object_comes_through_a_pipe_and_leaves_through_one() {
    let workplace = workplace();
    let (l3, key) = (workplace.arg("l3"), workplace.arg("key"));
    let mut bytes = vec![0; 300_000];
    Random::new(4).fill(&mut bytes);
    let put = ["put", "-", "piped", "--l3", &l3, "--key", &key, "--block-size", "16K", "--json"];
    let put = tierstream_reading(&bytes, put);
    assert_eq!(put.ok().json()["on_l3"], true);
    let file = workplace.arg("out");
    objects(&workplace, &["get", "piped", &file]).ok();
    assert!(std::fs::read(&file).unwrap() == bytes);
    // Nothing at all is an object too.
    tierstream_reading(b"", ["put", "-", "empty", "--l3", &l3, "--key", &key, "--block-size", "16K"]).ok();
    assert_eq!(objects(&workplace, &["get", "empty", "-"]).ok().stdout, "");
}

#[test]
fn objects_are_scrubbed_and_an_idle_l2_tells_of_them() {
    let workplace = workplace();
    let (l2, input) = (workplace.arg("l2"), workplace.arg("input/0/text-00.txt"));
    objects(&workplace, &["put", &input, "clean"]).ok();
    objects(&workplace, &["put", &input, "dirty", "--no-drain"]).ok();
    let idle = tierstream(["status", &l2, "--json"]).ok().json();
    assert_eq!(
        (&idle["running"], &idle["objects"]["objects"], &idle["objects"]["dirty_objects"]),
        (&false.into(), &2.into(), &1.into()),
        "{idle}"
    );
    assert!(idle["objects"]["dirty_bytes"].as_u64().unwrap() > 4096, "{idle}");
    assert!(tierstream(["status", &l2]).ok().stdout.contains("2 objects"), "{idle}");

    // The clean one is damaged on L3, and healed from L2.
    let file =
        workplace.files("l3/objects").into_iter().find(|path| path.extension().is_some_and(|of| of == "tso"));
    flip_byte(&file.unwrap(), 5000);
    let (l3, key) = (workplace.arg("l3"), workplace.arg("key"));
    let scrub = ["scrub", "--l2", &l2, "--l2-size", "64M", "--l3", &l3, "--key", &key];
    let found = tierstream(scrub.iter().chain(&["--json"])).ok().json();
    let count = |name: &str| found["objects"][name].as_u64().unwrap();
    assert_eq!(
        (count("l2_files"), count("l3_files"), count("l3_damaged"), count("l3_healed")),
        (2, 1, 1, 1),
        "{found}"
    );
    assert!(tierstream(scrub).ok().stdout.contains("objects on L3"));
    let blind = tierstream(["scrub", "--l2", &l2, "--l2-size", "64M", "--key", &key]).ok();
    assert!(blind.stderr.contains("2 objects are not checked"), "{blind:?}");
    // The dirty one has no other copy.
    objects(&workplace, &["put", &input, "dirty", "--no-drain"]).ok();
    for file in workplace.files("l2/objects") {
        flip_byte(&file, 5000);
    }
    tierstream(scrub).failed(1, &["l2/objects", "data block 0", "put the object again"]);
}

#[test]
fn keys_of_objects_are_listed_rotated_and_destroyed() {
    let workplace = workplace();
    let (l2, l3, key, key2) =
        (workplace.arg("l2"), workplace.arg("l3"), workplace.arg("key"), workplace.arg("key2"));
    let input = workplace.arg("input/0/text-00.txt");
    objects(&workplace, &["put", &input, "clean"]).ok();
    objects(&workplace, &["put", &input, "dirty", "--no-drain"]).ok();
    tierstream(["keys", "new", &key2, "--rotate-from", &key]).ok();
    tierstream(["keys", "rotate", &l2, &l3, "--key", &key, "--to", &key2]).ok();
    let listed = tierstream(["keys", "list", &l2, &l3, "--json"]).ok().json();
    for (tier, files) in [(0, 2), (1, 1)] {
        assert_eq!(
            (&listed[tier]["kind"], &listed[tier]["files"], &listed[tier]["keys"][0]["version"]),
            (&"objects".into(), &files.into(), &2.into()),
            "{listed}"
        );
        assert_eq!(listed[tier]["keys"].as_array().unwrap().len(), 1, "{listed}");
    }
    objects(&workplace, &["get", "dirty", "-"]).failed(1, &["key"]);
    let get = ["get", "dirty", "-", "--l3", &l3, "--l2", &l2, "--l2-size", "64M", "--key", &key2];
    assert_eq!(tierstream(get).ok().stdout.as_bytes(), std::fs::read(&input).unwrap());
    tierstream(["keys", "destroy", &l2, "--key", &key2, "--yes"]).ok();
    tierstream(get).failed(1, &["shredded"]);
    tierstream(["keys", "list", &workplace.arg("input")]).failed(1, &["no objects"]);
}
