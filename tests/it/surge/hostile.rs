//! Bodies that are made to hurt.

use std::io::Write;

use sekali::api::Code;
use tempfile::tempdir;

use super::memory;
use crate::bodies::compressed;
use crate::support::events::event_but;
use crate::support::{Process, Raw, alone, event, say};

/// What all of them together may take of the log's memory beside what it has, in bytes.
const MORE: u64 = 128 << 20;

/// Requests of each kind.
const EACH: usize = 4;

#[actix_web::test]
async fn hostile_bodies_get_a_clear_error_and_no_memory() {
    let _alone = alone();
    let home = tempdir().unwrap();
    let process = Process::configured(home.path(), "[limits]\nbody = \"8MiB\"\n");
    process.publish(event("t", "1")).await.ok();
    let before = memory(&process);
    let bomb = compressed("gzip", &vec![b' '; 256 << 20]).await;
    let deep_payload = event_but("payload", &format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
    let deep_body = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for _ in 0..EACH {
        let request = process.post("/publish").content_type("application/json");
        let inflated = process.send(request.insert_header(("content-encoding", "gzip")), bomb.clone()).await;
        inflated.problem(Code::BodyTooLarge);
        let faults = process.publish(deep_payload.clone()).await.faults(Code::InvalidEvents);
        assert_eq!(faults, ["0 payload too_deep"]);
        let faults = process.publish(deep_body.clone()).await.faults(Code::InvalidEvents);
        assert_eq!(faults, ["0 - not_an_object"]);
        let mut announced = Raw::publishing(process.address(), "Content-Length: 1073741824\r\n");
        assert_eq!(announced.answer().status, 413);
        assert_eq!(send_a_gibibyte(&process), 413);
    }
    let after = memory(&process);
    say(&format!("hostile bodies: memory {} MiB, then {} MiB", before >> 20, after >> 20));
    assert!(after < before + MORE, "from {before} to {after} bytes");
    process.publish(event("t", "2")).await.ok();
}

/// Sends a body of 1 GiB in chunks without saying how long it is, or as much of it as the log hears; gives the
/// status.
fn send_a_gibibyte(process: &Process) -> u16 {
    let mut raw = Raw::publishing(process.address(), "Transfer-Encoding: chunked\r\n");
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + (1 << 20), b' ');
    chunk.extend_from_slice(b"\r\n");
    // Whether it throws the rest away or hangs up is its own affair.
    let _ = (0..1_024).all(|_| raw.stream().write_all(&chunk).is_ok());
    raw.answer().status
}
