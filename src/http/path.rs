//! Paths match as they were sent, so that the rules of a proxy about paths hold here too.
//!
//! actix decodes a path before it looks for its route: `/%70ublish` would be `/publish`, past a
//! proxy that refuses the latter. Here percent-encoding means something only within the parameters
//! of a path, which handlers decode (`params::segment`).

use std::sync::LazyLock;

use actix_router::Quoter;
use actix_web::dev::ServiceRequest;

/// Leaves every escape of an ASCII character as it is. Others stay decoded: no route has such
/// characters.
static AS_SENT: LazyLock<Quoter> = LazyLock::new(|| {
    let ascii: Vec<_> = (0..128).collect();
    Quoter::new(b"", &ascii)
});

/// Has the router look at the path as it was sent. To be called before a route is chosen.
pub(super) fn match_as_sent(request: &mut ServiceRequest) {
    if request.uri().path().contains('%') {
        let uri = request.uri().clone();
        request.match_info_mut().get_mut().update_with_quoter(&uri, &AS_SENT);
    }
}
