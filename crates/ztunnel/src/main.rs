//! Node proxy of the ambient mesh.

use std::process::ExitCode;

use tokio::runtime::Builder;
use ztunnel::app;
use ztunnel::app::check::{self, Verdict};
use ztunnel::cli::ask::{Ask, Output};
use ztunnel::cli::{self, Command, driver};
use ztunnel::config::{Config, Environment};
use ztunnel::telemetry::logging::{self, Format};
use ztunnel::version::BuildInfo;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
#[cfg(not(feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: ztunnel::memory::Aligned = ztunnel::memory::Aligned;

/// What jemalloc is started with (spec admin-and-telemetry 2); `_RJEM_MALLOC_CONF` adds to it. Samples can be taken and are
/// not until somebody asks for them; pages go back to the system five seconds after their last use.
#[cfg(feature = "jemalloc")]
#[allow(unsafe_code, reason = "jemalloc looks for a symbol of this name")]
// SAFETY: the name is jemalloc's own for a pointer to a C string that is never written.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static JEMALLOC: &[u8; 119] =
    b"prof:true,prof_active:false,lg_prof_sample:19,thp:never,background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:5000\0";

fn main() -> ExitCode {
    let environment = Environment::of_this_process();
    let build = BuildInfo { istio_version: environment.istio_version() };
    match Command::of(&environment.arguments) {
        Command::Proxy => {}
        Command::Check(output) => return check(&environment, output),
        Command::Redirect(arguments) => return redirect(&arguments),
        Command::Ask(question) => return ask(&question, &environment),
        Command::Misused(how) => {
            eprintln!("{how}");
            return ExitCode::FAILURE;
        }
        Command::Version => {
            println!("{}", build.line());
            return ExitCode::SUCCESS;
        }
        Command::Help => {
            print!("{}", cli::help(&build));
            return ExitCode::SUCCESS;
        }
        Command::Unknown(command) => {
            eprintln!("unknown command: {command}");
            print!("{}", cli::help(&build));
            return ExitCode::FAILURE;
        }
    }
    match run(&environment, build) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn redirect(arguments: &[String]) -> ExitCode {
    match app::redirect::run(arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What `ztunnel explain` exits with when the connection would fail.
const WOULD_FAIL: u8 = 2;
/// Where the admin server is if the settings do not say.
const ADMIN_PORT: u16 = 15000;

fn ask(question: &Ask, environment: &Environment) -> ExitCode {
    let port = Config::load(environment).map_or(ADMIN_PORT, |config| config.admin_port);
    match driver::ask(question, port, &mut std::io::stdout().lock()) {
        Ok(driver::Verdict::Answered) => ExitCode::SUCCESS,
        Ok(driver::Verdict::Refused) => ExitCode::from(WOULD_FAIL),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(environment: &Environment, output: Output) -> ExitCode {
    let findings = match Config::load(environment) {
        Ok(config) => check::look(&config),
        Err(error) => check::settings(&error),
    };
    match output {
        Output::Text => findings.iter().for_each(|finding| println!("{finding}")),
        Output::Json => println!("{:#}", check::json(&findings)),
    }
    if findings.iter().any(|finding| finding.verdict == Verdict::Bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(environment: &Environment, build: BuildInfo) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(environment)?;
    let format = if config.log_json { Format::Json } else { Format::Text };
    let logging = logging::start(logging::Config { format, directives: config.log_filter.clone() }, std::io::stdout())?;
    logging.install()?;
    let control = Builder::new_current_thread().enable_all().build()?;
    let outcome = control.block_on(app::run(config, build, logging.clone(), &environment.supervisor()));
    let _ = logging.flush(); // what standard output does not take by now is lost
    Ok(outcome?)
}
