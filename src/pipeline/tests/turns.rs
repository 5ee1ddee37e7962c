//! Events that wait for the writer: addresses take turns.

use super::{event, is_pending, settings, start};
use crate::domain::Address;

#[actix::test]
async fn a_publish_does_not_wait_for_all_that_another_address_has_in_flight() {
    const FLOOD: usize = 40;
    let mut small_groups = settings();
    small_groups.store.commit_events = 10;
    let log = start(&small_groups);
    let publish_of = |last: u8, topic: &str, number: usize| {
        let events: Vec<_> = (0..5).map(|id| event(topic, &format!("{number} {id}"), "{}")).collect();
        let mut permit = log.pipeline.budget().permit(Address::of([192, 0, 2, last].into()));
        permit.charge_events(events.len()).unwrap();
        Box::pin(log.pipeline.publish(events, permit))
    };
    log.store.close_gate();
    let mut requests: Vec<_> = (0..FLOOD).map(|number| publish_of(1, "flood", number)).collect();
    for request in &mut requests {
        assert!(is_pending(request).await);
    }
    log.store.wait_for_groups(1);
    let waiting = async |events: usize| {
        let words = format!("writer\"}} {events}\n");
        log.until(|log| log.metrics.text(log.pipeline.sample()).unwrap().contains(&words)).await;
    };
    waiting(5 * FLOOD).await;
    for number in 0..3 {
        let mut request = publish_of(2, "other", number);
        assert!(is_pending(&mut request).await);
        requests.push(request);
        waiting(5 * (FLOOD + 1 + number)).await;
    }
    log.store.open_gate();
    for request in requests {
        assert_eq!(request.await.unwrap().len(), 5);
    }
    let order = log.store.topics();
    let turns: Vec<_> = (0..order.len()).filter(|at| order[*at] == "other").collect();
    // The first group has been taken out before, and the next turn is the flood's.
    let first = log.store.groups()[0];
    assert!(turns[0] <= first + 1 && turns[2] <= first + 5, "{turns:?} of {}, first {first}", order.len());
    assert_eq!(order.len(), FLOOD + 3);
    log.pipeline.stop().await;
}
