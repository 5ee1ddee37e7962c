//! `sekali serve`: runs the log.

use std::path::PathBuf;

use super::Outcome;
use crate::app;
use crate::config::{self, Overrides};
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A configuration file; without one the defaults apply
    #[arg(long, value_name = "FILE", env = "SEKALI_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "SEKALI_BIND")]
    bind: Option<String>,
    /// Where to listen for health and metrics alone, HOST:PORT
    #[arg(long, value_name = "ADDR", env = "SEKALI_OPS_BIND")]
    ops_bind: Option<String>,
    /// Where the events are, such as sqlite:data/sekali.db or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL", env = "SEKALI_STORE", hide_env_values = true)]
    store: Option<String>,
    /// What to log: error, warn, info, debug, trace, off, or a filter
    #[arg(long, value_name = "LEVEL", env = "SEKALI_LOG")]
    log: Option<String>,
    /// Names that clients may use in Host besides addresses and localhost, with commas between
    #[arg(long, value_name = "NAMES", env = "SEKALI_ALLOWED_HOSTS", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// Proxies that name their clients, as addresses and networks, with commas between
    #[arg(long, value_name = "NETWORKS", env = "SEKALI_TRUSTED_PROXIES", value_delimiter = ',')]
    trusted_proxies: Vec<String>,
    /// Serve clients of the first version unmodified: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "SEKALI_COMPAT_FIRST_VERSION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    compat_first_version: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let overrides = Overrides {
        bind: args.bind.clone(),
        ops_bind: args.ops_bind.clone(),
        store: args.store.clone(),
        log: args.log.clone(),
        allowed_hosts: args.allowed_hosts.clone(),
        trusted_proxies: args.trusted_proxies.clone(),
        compat_first_version: args.compat_first_version.clone(),
    };
    let settings = config::load(args.config.as_deref(), &overrides)?;
    let _telemetry = telemetry::init(&settings.log)?;
    app::run(&settings)?;
    Ok(Outcome::Done)
}
