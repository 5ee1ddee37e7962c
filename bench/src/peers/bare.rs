//! The ceiling of HTTP: an actix-web handler that reads the body and answers a fixed small JSON, in a process of
//! its own like any other peer.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use actix_web::web::{self, Bytes, PayloadConfig};
use actix_web::{App, HttpResponse, HttpServer};
use async_trait::async_trait;
use rustix::process::Signal;

use super::sekali::{Serving, address_of};
use super::{Peer, Running};
use crate::process::Server;

/// The subcommand that serves it.
pub(crate) const COMMAND: &str = "bare-http";

/// What it answers: as long as sekali's answer to one event.
const ANSWER: &str = r#"{"received":1,"accepted":1,"duplicates":0,"conflicts":0,"rejected":0,"results":[{"status":"accepted","seq":123456}]}"#;

/// The largest body, in bytes: sekali's default.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// The handler.
#[derive(Debug)]
pub(crate) struct Bare;

#[async_trait(?Send)]
impl Peer for Bare {
    fn name(&self) -> &'static str {
        "bare-http"
    }

    fn promise(&self) -> &'static str {
        "nothing: the ceiling of HTTP"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("actix-web of sekali-bench {}", env!("CARGO_PKG_VERSION")))
    }

    async fn start(&self, _directory: &Path) -> anyhow::Result<Box<dyn Running>> {
        let mut command = Command::new(std::env::current_exe()?);
        let (server, address) = Server::start(command.arg(COMMAND), Signal::TERM, address_of)?;
        Ok(Box::new(Serving::bare(server, address)))
    }
}

/// Serves until the process is told to end, with as many threads as there are cores, which is sekali's default.
pub(crate) fn serve() -> anyhow::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let app =
            || App::new().app_data(PayloadConfig::new(BODY_MAX)).route("/publish", web::post().to(answer));
        let server = HttpServer::new(app).bind((Ipv4Addr::LOCALHOST, 0))?;
        for address in server.addrs() {
            writeln!(std::io::stderr(), "listening on http://{address}")?;
        }
        Ok(server.run().await?)
    })
}

async fn answer(body: Bytes) -> HttpResponse {
    if body.is_empty() {
        return HttpResponse::BadRequest().finish();
    }
    HttpResponse::Ok().content_type("application/json").body(ANSWER)
}
