//! Reading a topic to its end.

use serde_json::Value;

use super::Client;

/// Every event of a topic, in the order of their seqs.
pub(crate) async fn everything(client: &Client, topic: &str) -> Vec<Value> {
    let page = client.read(&format!("/events?topic={topic}")).await;
    let events = page["events"].as_array().unwrap().clone();
    assert_eq!(page["count"], events.len(), "the count is that of the events");
    events
}

/// The seqs of events.
pub(crate) fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}
