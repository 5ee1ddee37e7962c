//! Events over HTTP/1.1: the bytes of requests, and the verdicts in answers.

use anyhow::{Context, bail};
use memchr::memmem;

use crate::drive::Answered;
use crate::plan::{EVENT_BYTES, Plan, Step};
use crate::wire::{Progress, Protocol};

/// Header fields that an answer may have.
const MAX_HEADERS: usize = 32;

/// What stands before each verdict.
const STATUS: &[u8] = b"\"status\":\"";

/// How verdicts are found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdicts {
    /// In the body, one for each event, in the order of the request.
    InBody,
    /// The server decides nothing: an answer means that it took the request, and the plan's verdicts count.
    None,
}

/// Answers to publishes.
#[derive(Debug)]
pub(crate) struct Http {
    verdicts: Verdicts,
    finder: memmem::Finder<'static>,
}

impl Http {
    /// Reads answers with verdicts of this kind.
    pub(crate) fn new(verdicts: Verdicts) -> Self {
        Self { verdicts, finder: memmem::Finder::new(STATUS) }
    }

    fn count(&self, body: &[u8], new: &[bool], answered: &mut Answered) -> anyhow::Result<()> {
        if matches!(self.verdicts, Verdicts::None) {
            for planned in new {
                answered.count(*planned, *planned);
            }
            return Ok(());
        }
        let mut places = self.finder.find_iter(body);
        for planned in new {
            let at = places.next().context("fewer verdicts than events")?;
            match body.get(at + STATUS.len()) {
                Some(b'a') => answered.count(true, *planned),
                Some(b'd') => answered.count(false, *planned),
                _ => bail!("neither accepted nor duplicate: {}", shown(body)),
            }
        }
        Ok(())
    }
}

impl Protocol for Http {
    fn take(
        &mut self,
        input: &[u8],
        new: &[bool],
        answered: &mut Answered,
        _back: &mut Vec<u8>,
    ) -> anyhow::Result<Progress> {
        let Some((status, body)) = whole(input)? else {
            return Ok(Progress { used: 0, done: false });
        };
        let used = body.end;
        if status != 200 {
            bail!("answered {status}: {}", shown(&input[body]));
        }
        self.count(&input[body], new, answered)?;
        Ok(Progress { used, done: true })
    }
}

/// The status and the place of the body, once all of it is there.
pub(crate) fn whole(input: &[u8]) -> anyhow::Result<Option<(u16, std::ops::Range<usize>)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(input)? else {
        return Ok(None);
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("an answer without Content-Length")?;
    let end = head + std::str::from_utf8(length.value)?.parse::<usize>()?;
    let status = response.code.context("an answer without a status")?;
    Ok((input.len() >= end).then_some((status, head..end)))
}

/// The beginning of a body, for an error.
pub(crate) fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

/// A publish of these events as NDJSON.
pub(crate) fn publish(plan: &Plan, steps: &[Step]) -> Vec<u8> {
    let mut body = Vec::with_capacity(steps.len() * (EVENT_BYTES + 1));
    for step in steps {
        plan.write(step.number, &mut body);
        body.push(b'\n');
    }
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn take(input: &[u8], new: &[bool]) -> anyhow::Result<(Progress, Answered)> {
        let mut answered = Answered::default();
        let progress = Http::new(Verdicts::InBody).take(input, new, &mut answered, &mut Vec::new())?;
        Ok((progress, answered))
    }

    const TWO: &str =
        r#"{"received":2,"results":[{"status":"accepted","seq":1},{"status":"duplicate","seq":1}]}"#;

    #[test]
    fn verdicts_are_compared_one_by_one_with_the_plan() {
        let input = answer("200 OK", TWO);
        let (progress, answered) = take(&input, &[true, false]).unwrap();
        assert_eq!(progress, Progress { used: input.len(), done: true });
        assert_eq!((answered.accepted, answered.duplicates, answered.wrong), (1, 1, 0));
        assert_eq!(take(&input, &[false, true]).unwrap().1.wrong, 2);
    }

    #[test]
    fn half_an_answer_is_waited_for() {
        let input = answer("200 OK", TWO);
        for end in [0, 10, input.len() - 1] {
            assert!(!take(&input[..end], &[true, false]).unwrap().0.done, "{end} bytes");
        }
    }

    #[test]
    fn errors_and_missing_verdicts_end_the_run() {
        assert!(take(&answer("503 Service Unavailable", "{}"), &[true]).is_err());
        assert!(take(&answer("200 OK", TWO), &[true; 3]).is_err());
    }
}
