//! The command line (spec configuration 1). The proxy takes no flags: everything is the environment's. The other commands
//! look at one that runs.

pub mod ask;
pub mod driver;
mod show;

use ask::{Ask, Output, Subject};

use crate::version::BuildInfo;

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy; further arguments mean nothing.
    Proxy,
    /// Print what there is of what the proxy needs.
    Check(Output),
    /// Install, remove or show packet rules, as these further arguments say.
    Redirect(Vec<String>),
    /// Print what was built.
    Version,
    /// Find something out about a ztunnel that runs.
    Ask(Ask),
    /// Print the commands.
    Help,
    /// One of these, in a way in which it cannot be called; says how it can.
    Misused(String),
    /// None of these.
    Unknown(String),
}

impl Command {
    /// Reads the arguments, without the program's own name.
    #[must_use]
    pub fn of(arguments: &[String]) -> Self {
        match arguments.first().map(String::as_str) {
            None | Some("proxy") => Self::Proxy,
            Some("check") => match &arguments[1..] {
                [] => Self::Check(Output::Text),
                [json] if json == "--json" => Self::Check(Output::Json),
                _ => Self::Misused("usage: ztunnel check [--json]".to_owned()),
            },
            Some("redirect") => Self::Redirect(arguments[1..].to_vec()),
            Some("version") => Self::Version,
            Some("help") => Self::Help,
            Some(other) => match Subject::of(other) {
                Some(subject) => ask::read(subject, &arguments[1..]).map_or_else(Self::Misused, Self::Ask),
                None => Self::Unknown(other.to_owned()),
            },
        }
    }
}

/// What `ztunnel help` prints.
#[must_use]
pub fn help(build: &BuildInfo) -> String {
    format!(
        "\nIstio Ztunnel ({})\n\nCommands:\nproxy (default) - Start the ztunnel proxy\n\
         check           - Look at what ztunnel needs here, and say what is missing\n\
         redirect        - Install, remove or show the packet rules that lead traffic to ztunnel\n\
         explain         - Say what would become of a connection, and why\n\
         connections     - List the connections that are open\n\
         failures        - List the last connections that failed, and what to do about it\n\
         top             - Watch what a running ztunnel does\n\
         version         - Print the version of ztunnel\nhelp            - Print commands and version of ztunnel\n",
        build.line()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_is_the_command() {
        for (arguments, command) in [
            (&[][..], Command::Proxy),
            (&["proxy", "ztunnel"], Command::Proxy),
            (&["check"], Command::Check(Output::Text)),
            (&["check", "--json"], Command::Check(Output::Json)),
            (&["check", "all"], Command::Misused("usage: ztunnel check [--json]".into())),
            (&["redirect", "show"], Command::Redirect(vec!["show".into()])),
            (&["version", "x"], Command::Version),
            (&["help"], Command::Help),
            (&["--help"], Command::Unknown("--help".into())),
        ] {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            assert_eq!(Command::of(&arguments), command);
        }
    }

    #[test]
    fn the_version_line_has_the_form_that_tools_parse() {
        let line = BuildInfo { istio_version: "1.30".into() }.line();
        assert!(line.starts_with("version.BuildInfo{Version:\"") && line.ends_with("\"}"));
        assert!(line.contains(&format!("CryptoProvider:\"{}\"", crate::version::CRYPTO)));
        assert!(line.contains("IstioVersion:\"1.30\""));
    }
}
