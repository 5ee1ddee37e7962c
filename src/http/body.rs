//! Reading a body: charged byte by byte as it arrives, then decompressed.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Payload;
use futures_util::StreamExt;

use super::arrival::{Arrival, too_large};
use super::failure::Failure;
use super::headers;
use super::inflate::{Bounds, inflate};
use super::peer::Peer;
use super::state::State;
use crate::pipeline::Permit;

/// The most bytes that are read of a body that is refused unread, so that its connection can be used again.
const DISCARD_BYTES: usize = 256 << 10;

/// How long they may take to arrive: the answer waits for them.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(20);

/// A permit for this request that has taken nothing yet.
pub(super) fn permit(state: &State, request: &HttpRequest) -> Permit {
    state.pipeline.budget().permit(Peer::of(request).address())
}

/// Reads the whole body, which is charged to the permit.
pub(super) async fn read(
    state: &State,
    request: &HttpRequest,
    payload: Payload,
    permit: &mut Permit,
) -> Result<Vec<u8>, Failure> {
    let encoding = headers::content_encoding(request.headers())?;
    let length = headers::content_length(request.headers()).unwrap_or(0);
    let limit = state.limits.body;
    if length > limit {
        return Err(too_large(limit));
    }
    if let Err(refused) = permit.look_for_bytes(length) {
        discard(payload).await;
        return Err(refused.into());
    }
    let body = Arrival { payload, length, limit }.read(&state.server, permit).await?;
    match encoding {
        None => Ok(body),
        Some(encoding) => inflate(body, encoding, Bounds::from(&state.limits), permit).await,
    }
}

/// Passes over a body that is not wanted, if it comes soon and is not large; otherwise its connection is closed after
/// the answer.
pub(super) async fn discard(mut payload: Payload) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            bytes += chunk.len();
            if bytes > DISCARD_BYTES {
                return;
            }
        }
    };
    // Whether it was read to its end is seen by the server, which closes the connection if it was not.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}
