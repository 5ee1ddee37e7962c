//! What is not copied, and is left as it was.

use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicBool;

use super::{Place, at, content, copy, copy_until, fill};
use crate::config::StoreUrl;
use crate::domain::Verdict;
use crate::store::contract::{append_and_compare, event_from, topic};
use crate::store::postgres::tests::server::Database;
use crate::store::transfer::{TransferError, Transferred, transfer};
use crate::store::{AppendError, Batch, StoreError};

#[test]
fn what_was_published_to_the_target_is_never_written_over() {
    for [from, to] in Place::pairs() {
        fill(&from, 0..2);
        copy(&from, &to).unwrap();
        // A repeat is counted there, and then nothing else.
        let engine = to.open();
        let mut writer = engine.open_writer().unwrap();
        let repeat = Batch { topic: topic("a"), events: vec![event_from("x", "a", "0", "{}")] };
        append_and_compare(&*engine, &mut *writer, (&repeat, 7_000));
        writer.flush(at(7_000)).unwrap();
        writer.close().unwrap();
        drop(engine);
        let before = content(&to);
        fill(&from, 2..4);
        let refused = copy(&from, &to);
        assert!(matches!(refused, Err(TransferError::Served)), "{refused:?}");
        assert_eq!(content(&to), before);
    }
}

#[test]
fn a_target_that_holds_something_else_is_refused_and_left_alone() {
    for [from, to] in Place::pairs() {
        fill(&from, 0..2);
        fill(&to, 0..1);
        let before = content(&to);
        let refused = copy(&from, &to);
        assert!(matches!(refused, Err(TransferError::NotEmpty)), "{refused:?}");
        assert_eq!(content(&to), before);
    }
    for [from, to] in Place::pairs() {
        let other = Place::file();
        fill(&from, 0..2);
        copy(&from, &to).unwrap();
        let before = content(&to);
        let differs = |refused: Result<Transferred, TransferError>, words: &str| {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(words) && text.ends_with("nothing was changed"), "{text}");
            assert_eq!(content(&to), before);
        };
        fill(&other, 0..1);
        differs(copy(&other, &to), "counted less");
        let other = Place::file();
        fill(&other, 1..9);
        differs(copy(&other, &to), "is another event in FROM");
        let changed = Place::file();
        fill(&changed, 0..3);
        changed.run("UPDATE events SET received_at = received_at + 1, checksum = NULL");
        differs(copy(&changed, &to), "is another event in FROM");
    }
}

#[test]
fn a_store_is_not_copied_to_itself_nor_where_something_runs_nor_where_it_is_not_known() {
    for [from, to] in Place::pairs() {
        let missing = copy(&from, &to);
        assert!(matches!(missing, Err(TransferError::Origin(_))), "{missing:?}");
        fill(&from, 0..2);
        let same = copy(&from, &from);
        assert!(matches!(same, Err(TransferError::Same)), "{same:?}");
        if let Place::Shared(_) = from {
            let mut again = from.settings();
            again.store.url = StoreUrl::parse(
                &format!("{}&application_name=x", from.url()).replace("127.0.0.1", "localhost"),
            )
            .unwrap();
            let same = transfer(&from.settings(), &again, &|_| (), &AtomicBool::new(false));
            assert!(matches!(same, Err(TransferError::Target(StoreError::InUse { .. }))), "{same:?}");
        }
        let engine = to.open();
        let writer = engine.open_writer().unwrap();
        let running = copy(&from, &to);
        assert!(
            matches!(
                running,
                Err(TransferError::Target(StoreError::Owned { .. } | StoreError::InUse { .. }))
            ),
            "{running:?}"
        );
        drop((writer, engine));
        copy(&from, &to).unwrap();
    }
}

#[test]
fn a_store_of_an_older_version_is_not_migrated_by_being_copied() {
    let (from, to) = (Place::file(), Place::file());
    fill(&from, 0..2);
    from.run("DROP TABLE copies; PRAGMA user_version = 4");
    let refused = copy(&from, &to);
    assert!(matches!(refused, Err(TransferError::Origin(StoreError::Older { found: 4, .. }))), "{refused:?}");
    let Some(database) = Database::fresh() else { return };
    let from = Place::Shared(database);
    fill(&from, 0..2);
    from.run("UPDATE S.store SET version = 1");
    let refused = copy(&from, &to);
    assert!(matches!(refused, Err(TransferError::Origin(StoreError::Older { found: 1, .. }))), "{refused:?}");
}

#[test]
fn a_node_that_comes_back_while_its_database_is_copied_to_is_refused_until_it_is_whole() {
    let Some(database) = Database::fresh() else { return };
    let (from, to) = (Place::file(), Place::Shared(database));
    fill(&from, 0..4);
    let engine = to.open();
    let writer = RefCell::new(engine.open_writer().unwrap());
    let Place::Shared(database) = &to else { unreachable!() };
    database.disconnect();
    let refused = Cell::new(0);
    let new = Batch { topic: topic("a"), events: vec![event_from("x", "a", "new", "{}")] };
    let append = || writer.borrow_mut().append(&[&new], at(9_000));
    copy_until(&from, &to, |_| {
        match append() {
            // As soon as it knows that its connection is lost, or when that breaks under a commit.
            Err(AppendError::Failed(error) | AppendError::Unknown(error)) => {
                // It may be seen only now that a connection was lost, and it is tried on without whoever asks meanwhile.
                let is_expected = matches!(error, StoreError::HalfCopied { .. } | StoreError::Unavailable(_));
                assert!(is_expected, "{error}");
            }
            Err(error @ AppendError::Locked { .. }) => panic!("{error}"),
            Ok(decided) => panic!("{decided:?}"),
        }
        refused.set(refused.get() + 1);
        false
    })
    .unwrap();
    assert!(refused.get() > 3);
    let last = content(&from).events[1].len() as u64;
    // Each of these waits for a connection for a while.
    let decided = (0..1_000).find_map(|_| append().ok()).unwrap();
    assert_eq!(decided[0][0].verdict(), Some(Verdict::Accepted { seq: last + 1 }));
}
