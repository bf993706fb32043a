//! Published vectors, from the text files beside this one, on every kernel: what is valid seals to these bytes and
//! opens, what is not is refused and leaves zeroes.

use super::*;

struct Published {
    place: String,
    key: Vec<u8>,
    nonce: Nonce,
    aad: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    tag: Tag,
    valid: bool,
}

/// Reads `field = value` lines in groups that empty lines separate, with a heading of `#` lines.
fn parse(name: &str, text: &str) -> Vec<Published> {
    let mut vectors = Vec::new();
    let mut line_number = 1;
    for group in text.split("\n\n") {
        let place = format!("{name}:{line_number}");
        line_number += group.lines().count() + 1;
        if group.starts_with('#') {
            continue;
        }
        let field = |wanted: &str| {
            let found = group.lines().find_map(|line| {
                let (field, value) = line.split_once(" =")?;
                (field == wanted).then_some(value.trim())
            });
            found.unwrap_or_else(|| panic!("{place}: no {wanted}"))
        };
        vectors.push(Published {
            key: hex(field("Key")),
            nonce: Nonce::random(hex(field("IV")).try_into().unwrap()),
            aad: hex(field("AAD")),
            plain: hex(field("PT")),
            sealed: hex(field("CT")),
            tag: hex(field("Tag")).try_into().unwrap(),
            valid: match field("Result") {
                "valid" => true,
                "invalid" => false,
                other => panic!("{place}: {other}"),
            },
            place,
        });
    }
    vectors
}

fn check(kernel: &str, cipher: Cipher, vector: &Published) {
    let Published { nonce, aad, plain, sealed, tag, place, .. } = vector;
    let aead = aead_with(kernel, cipher, &vector.key).unwrap();
    let mut opened = vec![0xa5; sealed.len()];
    let mut body = sealed.clone();
    if vector.valid {
        aead.open_into(nonce, aad, sealed, &mut opened, tag).unwrap();
        assert_eq!(opened, *plain, "{kernel}, {place}");
        aead.open_in_place(nonce, aad, &mut body, tag).unwrap();
        assert_eq!(body, *plain, "{kernel}, {place}");
        assert_eq!(aead.seal_in_place(nonce, aad, &mut body), *tag, "{kernel}, {place}");
        assert_eq!(body, *sealed, "{kernel}, {place}");
    } else {
        assert!(aead.open_into(nonce, aad, sealed, &mut opened, tag).is_err(), "{kernel}, {place}");
        assert_eq!(opened, vec![0; sealed.len()], "{kernel}, {place}");
        assert!(aead.open_in_place(nonce, aad, &mut body, tag).is_err(), "{kernel}, {place}");
        assert_eq!(body, vec![0; sealed.len()], "{kernel}, {place}");
    }
}

fn check_file(cipher: Cipher, name: &str, text: &str, valid: usize, invalid: usize) {
    let vectors = parse(name, text);
    let found = vectors.iter().filter(|vector| vector.valid).count();
    assert_eq!((found, vectors.len() - found), (valid, invalid), "{name} is whole");
    on_every_kernel(cipher, |kernel| vectors.iter().for_each(|vector| check(kernel, cipher, vector)));
}

#[test]
fn nist_vectors_of_aes() {
    let text = include_str!("nist_aes256_gcm.txt");
    check_file(Cipher::Aes256Gcm, "nist_aes256_gcm.txt", text, 75, 0);
}

#[test]
fn wycheproof_vectors_of_aes() {
    let text = include_str!("wycheproof_aes256_gcm.txt");
    check_file(Cipher::Aes256Gcm, "wycheproof_aes256_gcm.txt", text, 39, 27);
}

#[test]
fn wycheproof_vectors_of_sm4() {
    let text = include_str!("wycheproof_sm4_gcm.txt");
    check_file(Cipher::Sm4Gcm, "wycheproof_sm4_gcm.txt", text, 38, 27);
}
