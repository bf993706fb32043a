#![no_main]
//! Hostile key files: an error that repeats nothing of them, or a key whose text form comes back.

use libfuzzer_sys::fuzz_target;
use tierstream_crypto::RootKey;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match RootKey::parse(text) {
        Ok(key) => {
            let written = key.to_text();
            let again = RootKey::parse(&written).expect("a text form that we wrote");
            assert_eq!(again.id(), key.id());
            assert_eq!(*again.to_text(), *written);
        }
        Err(error) => {
            // A root of 64 digits may stand on any line: no long run of the file may be in the message.
            let message = error.to_string();
            let secret = text.split_whitespace().filter(|word| word.len() >= 24);
            for word in secret {
                assert!(!message.contains(word), "the message repeats the key file");
            }
        }
    }
});
