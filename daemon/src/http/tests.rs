use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::tests::{person, with_policy_and_http};

/// One answer: status, head in small letters, body.
fn ask(address: SocketAddr, head: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let text = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    (text[9..12].parse().unwrap(), text, answer[end + 4..].to_vec())
}

fn get(address: SocketAddr, path: &str, more: &str) -> (u16, String, Vec<u8>) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"))
}

#[test]
fn numbers_are_open_and_data_wants_a_token() {
    let at = with_policy_and_http(
        r#"{"rights":["read","list","admin"],"data_sets":["set"]},{"rights":["admin"],"data_sets":["**"]}"#,
    );
    let address = at.http();
    for (path, expected) in [
        ("/", "<title>tierstream"),
        ("/healthz", "ok"),
        ("/readyz", "ready"),
        ("/metrics", "# TYPE tierstream_l1_hits_total counter"),
        ("/v1/status", "\"l1_blocks\":64"),
    ] {
        let (status, head, body) = get(address, path, "");
        assert!(status == 200 && String::from_utf8(body).unwrap().contains(expected), "{path}: {head}");
    }
    assert_eq!(get(address, "/v1/datasets", "").0, 401);
    assert_eq!(get(address, "/v1/datasets", "Authorization: Bearer ts1.a.b.c\r\n").0, 403);
    let token = person(&at);
    let token = format!("Authorization: Bearer {}\r\n", token.token);
    let (status, _, body) = get(address, "/v1/datasets", &token);
    assert_eq!((status, body.as_slice()), (200, &br#"{"datasets":["set"]}"#[..]));
    let (status, _, body) = get(address, "/v1/datasets/set", &token);
    assert!(status == 200 && String::from_utf8(body).unwrap().contains("\"sm4-gcm\""));
    let shard = "/v1/datasets/set/shards/0";
    let (status, head, body) = get(address, shard, &token);
    assert!(status == 200 && head.contains("content-length: 300000") && body == at.payload);
    let (status, head, body) = get(address, shard, &format!("{token}Range: bytes=8000-99999\r\n"));
    assert!(status == 206 && head.contains("bytes 8000-99999/300000") && body == at.payload[8000..100_000]);
    let (status, head, _) = get(address, shard, &format!("{token}Range: bytes=300000-\r\n"));
    assert!(status == 416 && head.contains("bytes */300000"));
    let (status, head, body) = ask(
        address,
        &format!("HEAD {shard} HTTP/1.1\r\nHost: 127.0.0.1:9\r\nConnection: close\r\n{token}\r\n"),
    );
    assert!(status == 200 && head.contains("content-length: 300000") && body.is_empty());
    for (path, status) in [
        ("/v1/datasets/set/shards/1", 404),
        ("/v1/datasets/set/shards/x", 404),
        ("/v1/datasets/other", 403),
        ("/v1/datasets/..%2fother", 403),
        ("/v1/datasets/none", 403),
        ("/v1/datasetsx", 404),
        ("/nothing", 404),
    ] {
        assert_eq!(get(address, path, &token).0, status, "{path}");
    }
    let (status, ..) = ask(address, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 421);
    assert_eq!(ask(address, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").0, 405);
    // Two requests on one connection, and half of a third.
    let (_, text, rest) = ask(
        address,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\nGET",
    );
    assert!(text.contains("200") && String::from_utf8(rest).unwrap().ends_with("ready\n"));
}

#[test]
fn nobody_elsewhere_is_listened_to() {
    let error = super::Http::bind("0.0.0.0:0".parse().unwrap()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("TLS"), "{error}");
}
