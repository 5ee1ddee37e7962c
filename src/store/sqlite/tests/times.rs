//! Events whose timestamps earlier versions took and this one refuses are whole: nothing of them is
//! damaged.

use super::doctor::{SEAL_KEYS, inspect, rebuild};
use super::{open_sealing, settings};
use crate::domain::{Event, Parts, Verdict, check_timestamp};
use crate::store::contract::{append, read_all, topic};
use crate::store::{Batch, Engine};

#[test]
fn a_timestamp_of_an_earlier_version_is_read_and_is_no_damage() {
    let long = format!("2026-11-22T10:00:00.{}Z", "1".repeat(100_000));
    let times = [long.as_str(), "1998-12-31T23:58:60Z", "2024-02-29 23:59:60+05:30"];
    let directory = tempfile::tempdir().unwrap();
    let store = open_sealing(&settings(directory.path()), SEAL_KEYS).unwrap();
    let mut writer = store.open_writer().unwrap();
    for (number, timestamp) in times.into_iter().enumerate() {
        assert!(check_timestamp(timestamp).is_err(), "no request brings it any more");
        let event_id = number.to_string();
        let parts = Parts { topic: "t", event_id: &event_id, timestamp, source: "s", payload: "{}" };
        let batch = Batch { topic: topic("t"), events: vec![Event::pack(parts)] };
        assert!(matches!(append(&mut *writer, &batch)[..], [Verdict::Accepted { .. }]));
    }
    let stored = read_all(&*store.reader(), "t");
    assert_eq!(stored.iter().map(|of| of.event.parts().timestamp).collect::<Vec<_>>(), times);
    writer.close().unwrap();
    drop(store);
    assert_eq!(inspect(&directory).faults, []);
    assert_eq!(rebuild(&directory).faults, []);
}
