//! The console: a page that shows what the log does, and everything that it loads, from the program itself.

use actix_web::http::header::{CACHE_CONTROL, ETAG, EntityTag, Header, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse};
use xxhash_rust::xxh3::xxh3_64;

use super::failure::Failure;
use super::guard;
use crate::api::Code;

/// Scripts, styles and data come from this server and nowhere else, none stands in the page itself, and no script can turn
/// text into HTML or code (trusted types): what comes from events can only be shown.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the console.
struct File {
    /// Below `/console/`.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

static PAGE: File = file("index.html", HTML, include_bytes!("index.html"));

static FILES: [File; 25] = [
    file("address.mjs", SCRIPT, include_bytes!("address.mjs")),
    file("base.css", CSS, include_bytes!("base.css")),
    file("chart.mjs", SCRIPT, include_bytes!("chart.mjs")),
    file("dom.mjs", SCRIPT, include_bytes!("dom.mjs")),
    file("event.mjs", SCRIPT, include_bytes!("event.mjs")),
    file("fault.mjs", SCRIPT, include_bytes!("fault.mjs")),
    file("find.mjs", SCRIPT, include_bytes!("find.mjs")),
    file("format.mjs", SCRIPT, include_bytes!("format.mjs")),
    file("icon.svg", "image/svg+xml", include_bytes!("icon.svg")),
    file("json.mjs", SCRIPT, include_bytes!("json.mjs")),
    file("main.mjs", SCRIPT, include_bytes!("main.mjs")),
    file("metrics.mjs", SCRIPT, include_bytes!("metrics.mjs")),
    file("now.mjs", SCRIPT, include_bytes!("now.mjs")),
    file("parts.css", CSS, include_bytes!("parts.css")),
    file("publish.mjs", SCRIPT, include_bytes!("publish.mjs")),
    file("rates.mjs", SCRIPT, include_bytes!("rates.mjs")),
    file("route.mjs", SCRIPT, include_bytes!("route.mjs")),
    file("server.mjs", SCRIPT, include_bytes!("server.mjs")),
    file("sources.mjs", SCRIPT, include_bytes!("sources.mjs")),
    file("stream.mjs", SCRIPT, include_bytes!("stream.mjs")),
    file("tail.mjs", SCRIPT, include_bytes!("tail.mjs")),
    file("theme.js", SCRIPT, include_bytes!("theme.js")),
    file("topics.mjs", SCRIPT, include_bytes!("topics.mjs")),
    file("vendor/uPlot.iife.min.js", SCRIPT, include_bytes!("vendor/uPlot.iife.min.js")),
    file("vendor/uPlot.min.css", CSS, include_bytes!("vendor/uPlot.min.css")),
];

const fn file(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> File {
    File { name, content_type, bytes }
}

/// `GET /`
pub(super) async fn page(request: HttpRequest) -> HttpResponse {
    PAGE.answer(&request)
}

/// `GET /console/...`
pub(super) async fn part(request: HttpRequest) -> Result<HttpResponse, Failure> {
    let name = request.match_info().query("file");
    let found = FILES.iter().find(|file| file.name == name);
    let file = found.ok_or_else(|| Failure::new(Code::NotFound, "the console has no such file"))?;
    Ok(file.answer(&request))
}

impl File {
    /// The file, or that the browser has it already. It asks each time, so that a new version of the program is never mixed
    /// with files of an old one.
    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let tag = EntityTag::new_strong(format!("{:016x}", xxh3_64(self.bytes)));
        let mut response = if has(request, &tag) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response.insert_header((ETAG, tag.to_string())).insert_header((CACHE_CONTROL, "no-cache"));
        guard::protect(&mut response, POLICY);
        if has(request, &tag) {
            return response.finish();
        }
        response.content_type(self.content_type).body(self.bytes)
    }
}

fn has(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|had| had.weak_eq(tag)),
        Err(_) => false,
    }
}
