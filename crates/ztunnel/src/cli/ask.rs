//! Questions to a ztunnel that runs: what the arguments of `explain`, `connections`, `failures` and `top` ask for.

use std::net::SocketAddr;

/// A question, whom to put it to, and how to show the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What to find out.
    pub subject: Subject,
    /// Path and query of the request.
    pub path: String,
    /// The admin server, if it is not where the settings say.
    pub admin: Option<SocketAddr>,
    /// How the answer is shown.
    pub output: Output,
}

/// What there is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// What would become of a connection.
    Explain,
    /// Connections that are open.
    Connections,
    /// Connections that failed.
    Failures,
    /// The whole at a glance, again and again.
    Top,
}

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: what the admin server says.
    Json,
}

/// How each is to be called.
const USAGE: [(&str, Subject, &[&str]); 4] = [
    ("explain SOURCE DESTINATION:PORT [--json]", Subject::Explain, &[]),
    (
        "connections [--namespace N] [--workload N] [--direction inbound|outbound] [--limit N] [--tcp] [--json]",
        Subject::Connections,
        &["namespace", "workload", "direction", "limit"],
    ),
    (
        "failures [--code C] [--namespace N] [--workload N] [--limit N] [--json]",
        Subject::Failures,
        &["code", "namespace", "workload", "limit"],
    ),
    ("top [--json]", Subject::Top, &[]),
];

impl Subject {
    /// The subject of a command of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        USAGE.iter().find(|(usage, ..)| usage.split(' ').next() == Some(name)).map(|(_, subject, _)| *subject)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Explain => "/debug/explain",
            Self::Connections => "/debug/connections",
            Self::Failures => "/debug/failures",
            Self::Top => "/debug/summary",
        }
    }

    /// How many arguments are no options.
    fn operands(self) -> &'static [&'static str] {
        match self {
            Self::Explain => &["src", "dst"],
            Self::Connections | Self::Failures | Self::Top => &[],
        }
    }
}

/// Reads the arguments after the name of the command.
///
/// # Errors
/// How the command is to be called, after what is wrong.
pub fn read(subject: Subject, arguments: &[String]) -> Result<Ask, String> {
    let (usage, options) = USAGE
        .iter()
        .find(|(_, known, _)| *known == subject)
        .map_or(("", &[][..]), |(usage, _, options)| (usage, options));
    let misused = |what: String| format!("{what}\nusage: ztunnel {usage} [--admin ADDRESS:PORT]");
    let (mut admin, mut output, mut query) = (None, Output::Text, form_urlencoded::Serializer::new(String::new()));
    let mut operands = subject.operands().iter();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(option) = argument.strip_prefix("--") else {
            let name = operands.next().ok_or_else(|| misused(format!("unexpected argument {argument}")))?;
            query.append_pair(name, argument);
            continue;
        };
        if option == "json" {
            output = Output::Json;
            continue;
        }
        if option == "tcp" && subject == Subject::Connections {
            query.append_pair("tcp", "true");
            continue;
        }
        if option != "admin" && !options.contains(&option) {
            return Err(misused(format!("unknown option --{option}")));
        }
        let value = rest.next().ok_or_else(|| misused(format!("--{option} needs a value")))?;
        if option == "admin" {
            admin = Some(value.parse().map_err(|_| misused(format!("{value} is no address and port")))?);
        } else {
            query.append_pair(option, value);
        }
    }
    if let Some(missing) = operands.next() {
        let what = if *missing == "src" { "source" } else { "destination" };
        return Err(misused(format!("the {what} is missing")));
    }
    let query = query.finish();
    let path = if query.is_empty() { subject.path().to_owned() } else { format!("{}?{query}", subject.path()) };
    Ok(Ask { subject, path, admin, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Ask, String> {
        let mut words = line.split(' ').map(str::to_owned);
        let subject = Subject::of(&words.next().unwrap()).unwrap();
        read(subject, &words.collect::<Vec<_>>())
    }

    #[test]
    fn arguments_become_a_request() {
        let explain = asked("explain shop/web-1 cart.shop:80 --json").unwrap();
        assert_eq!(explain.path, "/debug/explain?src=shop%2Fweb-1&dst=cart.shop%3A80");
        assert_eq!((explain.output, explain.admin), (Output::Json, None));
        assert_eq!(asked("connections --tcp").unwrap().path, "/debug/connections?tcp=true");
        assert!(asked("failures --tcp").is_err());
        let connections = asked("connections --namespace shop --limit 5 --admin [::1]:15099").unwrap();
        assert_eq!(connections.path, "/debug/connections?namespace=shop&limit=5");
        assert_eq!(connections.admin, Some("[::1]:15099".parse().unwrap()));
        assert_eq!(asked("top").unwrap().path, "/debug/summary");
    }

    #[test]
    fn misuse_is_answered_with_the_usage() {
        for (line, complaint) in [
            ("explain shop/web", "the destination is missing\nusage: ztunnel explain SOURCE DESTINATION:PORT [--json]"),
            ("explain a b:1 c", "unexpected argument c\n"),
            ("failures --direction inbound", "unknown option --direction\n"),
            ("failures --code", "--code needs a value\n"),
            ("top --admin here", "here is no address and port\n"),
        ] {
            let error = asked(line).unwrap_err();
            assert!(error.starts_with(complaint), "{error}");
        }
    }
}
