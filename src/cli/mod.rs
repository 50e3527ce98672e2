//! The command line (section 11). Results go to standard output, everything else to standard error; an error is one line
//! that begins with `tract:`, and a non-zero exit.

mod admin;
mod apply;
mod check;
mod conformance;
mod hooks;
mod migrate;
mod serve;
mod tenants_file;
mod token;

use crate::{
    app::{self, AppError},
    config::{ConfigError, listen_address},
};
use clap::{Parser, Subcommand, error::ErrorKind};
use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

#[derive(Debug, Parser)]
#[command(
    name = "tract",
    version,
    about = "The router between a business's bot and its human agents.",
    after_help = "Example:\n  tract demo        a whole conversation on this machine, with nothing to configure",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole system on this machine: router, bot, agent tool and a conversation between them
    #[command(after_help = "Example:\n  tract demo\n  tract demo --listen 127.0.0.1:9090")]
    Demo {
        /// Where the router listens
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = listen_address)]
        listen: SocketAddr,
    },
    /// Run the router
    #[command(
        after_help = "Example:\n  tract serve\n  tract serve --config /etc/tract/tract.toml --listen 0.0.0.0:8080\n\n\
        Every key of the file is also read from the environment, which wins: TRACT_STORE__PATH=/var/lib/tract"
    )]
    Serve(serve::Serve),
    /// Create or update the clients, businesses and agent tools that a file declares
    #[command(
        after_help = "Example:\n  tract apply -f tenants.toml --url http://127.0.0.1:8080 --admin-token \"$TOKEN\""
    )]
    Apply(apply::Apply),
    /// Issue a token for a receiver of a client, and print it alone
    #[command(after_help = "Example:\n  tract token --client acme --receiver sprinkle --ttl 1h")]
    Token(token::Token),
    /// See how webhooks fare, enable them again, and send dead letters again
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  tract hooks list\n  tract hooks replay --client acme --since 2026-07-25T17:20:00Z"
    )]
    Hooks(hooks::Hooks),
    /// Move everything from one store into another, embedded or Redis; the router must be stopped
    #[command(after_help = "Example:\n  tract migrate --from ./tract-data --to redis://127.0.0.1:6379\n  \
        tract migrate --from redis://127.0.0.1:6379 --to ./tract-data\n\n\
        Ids, counters and keys are kept, and both stores are compared in the end. If it is interrupted, the same command goes \
        on. The source is only read. A URL with a password is better in the environment: TRACT_MIGRATE_TO.")]
    Migrate(migrate::Migrate),
    /// Say what is wrong with the configuration, and where, without touching anything
    #[command(after_help = "Example:\n  tract check --config tract.toml -f tenants.toml")]
    Check(check::Check),
    /// Say what somebody's webhook endpoint handles and what it does not, by playing the router's side against it
    #[command(after_help = "Example:\n  tract conformance --url http://127.0.0.1:9002/tract --secret whsec_...\n  \
        tract conformance --url https://chat.sprinkle.example/tract --topic message.receive --json\n\n\
        It sends some 100 deliveries about customers who do not exist (conformance-...): use an installation for tests. \
        Exits with 0 if the endpoint handles everything, warnings allowed.")]
    Conformance(conformance::Conformance),
}

/// The settings file: as named, else `./tract.toml` if there is one.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The settings file; default: ./tract.toml if it is there, else built-in settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from("tract.toml")).filter(|path| path.exists());
        self.config.clone().or_else(usual)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tenants(#[from] tenants_file::TenantsError),
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the runtime did not start: {0}")]
    Runtime(io::Error),
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Migrate(Box<crate::store::migrate::MigrateError>),
    #[error("{0}")]
    Faults(check::Faults),
    #[error(transparent)]
    Conformance(#[from] conformance::ConformanceFailure),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tract: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo { listen } => Ok(app::run(app::demo(listen)).map_err(Failure::Runtime)??),
        Command::Serve(serve) => serve.run(),
        Command::Apply(apply) => apply.run(),
        Command::Token(token) => token.run(),
        Command::Hooks(hooks) => hooks.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Check(check) => check.run(),
        Command::Conformance(conformance) => conformance.run(),
    }
}

/// Help and version as clap shows them; a slip in the arguments as one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let first: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let first = first.join(" ");
    eprintln!("tract: {} (see --help)", first.strip_prefix("error: ").unwrap_or(&first));
    ExitCode::from(2)
}

/// Writes a command's result; a reader that went away is an error, not a panic.
fn print(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<(), Failure> {
    use io::Write;
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").map_err(Failure::Output)?;
    }
    out.flush().map_err(Failure::Output)
}

/// Runs a client command, for which one thread is plenty.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::Runtime)?.block_on(future))
}
