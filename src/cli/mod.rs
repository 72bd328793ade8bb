//! The commands of `casemate`: what a person types, and what is said back.
//!
//! Invariants: a command that fails says in one sentence on standard error what is wrong and what to do, and ends with
//! a code that says which kind it is; `serve` and `dev` hand over a configuration that is whole. The arguments and
//! the environment are passed in, never read here.

mod args;
mod cluster;
mod init;
pub mod join;
mod logging;
pub mod notify;
pub mod ready;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::runtime::Runtime;

use crate::config::{self, Config, DevListeners, Sources};
use crate::env::SystemClock;
use crate::security::{PrincipalRules, ServerTls};
use args::{Arguments, Command, ConfigCommand};

pub use logging::init as init_logging;

/// The configuration, the folder or the command line cannot be used.
const EXIT_CONFIGURATION: u8 = 2;

/// What is left to do after the command line was understood.
pub enum Next {
    /// Nothing; the process ends with this.
    Exit(ExitCode),
    /// Run a node until it ends.
    Serve(Box<Config>),
}

/// Understands the command line and does everything but serve. Blocks on file I/O.
pub fn start(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Next {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Also help, which is no error and goes to standard output.
        Err(error) => {
            let _ = error.print();
            return Next::Exit(if error.use_stderr() { ExitCode::from(EXIT_CONFIGURATION) } else { ExitCode::SUCCESS });
        }
    };
    match environment_of(environment).and_then(|environment| run(arguments.command, environment)) {
        Ok(next) => next,
        Err(error) => {
            eprintln!("casemate: {}", sentence(&error));
            Next::Exit(ExitCode::from(EXIT_CONFIGURATION))
        }
    }
}

/// An error with its causes, each said once: many name their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// The threads that serve connections.
pub fn runtime(config: &Config) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Ok(threads @ 1..) = usize::try_from(config.options.limits.worker_threads) {
        builder.worker_threads(threads);
    }
    builder.thread_name("casemate").enable_all().build()
}

fn environment_of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>> {
    let mut environment = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("CASEMATE_")) else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name.to_owned(), value)),
            Err(_) => bail!("the environment variable {name} is no UTF-8 text: correct or unset it"),
        }
    }
    Ok(environment)
}

fn run(command: Command, environment: Vec<(String, String)>) -> Result<Next> {
    let done = Ok(Next::Exit(ExitCode::SUCCESS));
    match command {
        Command::Init(arguments) => {
            match &arguments.bundle {
                None => {
                    let made = init::init(&arguments.request()?)?;
                    print!("{}", init::next_steps(&arguments.dir, &made));
                }
                Some(bundle) => print!("{}", join::from_file(&arguments.joining(), bundle, arguments.passphrase()?)?),
            }
            done
        }
        Command::Serve(arguments) => {
            let sources = Sources { file: arguments.config, text: None, environment, sets: arguments.set };
            Ok(Next::Serve(Box::new(load(&sources)?)))
        }
        Command::Dev(arguments) => dev(arguments, environment),
        Command::Config { command } => {
            configuration(command, environment)?;
            done
        }
        Command::Cluster { command } => {
            print!("{}", cluster::run(command, environment)?);
            done
        }
        Command::Version { json } => {
            print!("{}", version(json));
            done
        }
    }
}

fn load(sources: &Sources) -> Result<Config> {
    init::refuse_half_made(sources.file.parent().unwrap_or(Path::new("")), "init")?;
    Ok(Config::load(sources)?)
}

/// Everything is checked before the folder is made, so that a mistake leaves nothing behind.
fn dev(arguments: args::Dev, environment: Vec<(String, String)>) -> Result<Next> {
    let args::Dev { dir, listen, tls_listen, admin_listen, set } = arguments;
    let listeners = DevListeners { plaintext: listen, tls: tls_listen, admin: admin_listen };
    let tls = listeners.tls().to_owned();
    // A bad address is refused under the name of its flag below.
    let peer_listen = init::peer_listen(&tls).unwrap_or_else(|_| config::Options::default().peer.listen);
    let request = init::Request { dir: dir.clone(), hosts: Vec::new(), listen: tls, advertise: None, peer_listen };
    let mut sources = Sources { file: dir.join(config::FILE_NAME), text: None, environment, sets: set };
    let config = if sources.file.exists() {
        Config::load_dev(&sources, &listeners)?
    } else {
        sources.text = Some(init::sample(&request)?);
        Config::load_dev(&sources, &listeners)?;
        init::clear_half_made(&dir)?;
        init::init(&request)?;
        sources.text = None;
        Config::load_dev(&sources, &listeners)?
    };
    let dir = config.data_dir.display();
    eprintln!(
        "casemate dev: no authorization and a plaintext listener, on loopback only; for trying out. Data in {dir}"
    );
    Ok(Next::Serve(Box::new(config)))
}

fn configuration(command: ConfigCommand, environment: Vec<(String, String)>) -> Result<()> {
    let sources = |source: args::Source| Sources { file: source.config, text: None, environment, sets: source.set };
    match command {
        ConfigCommand::Check(source) => {
            let config = load(&sources(source))?;
            check_files(&config)?;
            println!("{} can be used", config.file.display());
        }
        ConfigCommand::Show { source, json } => {
            let config = load(&sources(source))?;
            let text = if json { config.to_json()? + "\n" } else { config.to_toml()? };
            print!("{text}");
        }
    }
    Ok(())
}

/// What a configuration names is there and fits: certificates and keys are read as `serve` reads them.
fn check_files(config: &Config) -> Result<()> {
    let rules = config.kafka.get("ssl.principal.mapping.rules").map_or("DEFAULT", String::as_str);
    let rules = PrincipalRules::parse(rules)?;
    ServerTls::load(config.tls_files.clone(), rules, std::sync::Arc::new(SystemClock))?;
    let objects = &config.options.objects;
    for option in [&objects.ca_file, &objects.client_cert_file, &objects.client_key_file, &objects.credentials_file] {
        if let Some(path) = config.path(option) {
            std::fs::File::open(&path).with_context(|| unreadable(&path))?;
        }
    }
    Ok(())
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}: name a file that this user may read", path.display())
}

fn version(json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        format!("{}\n", serde_json::json!({ "name": "casemate", "version": version, "kafka": ready::KAFKA_RELEASE }))
    } else {
        format!("casemate {version} (Kafka {} protocol)\n", ready::KAFKA_RELEASE)
    }
}

/// A folder of the command line as an absolute path, for messages that are pasted elsewhere.
fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests;
