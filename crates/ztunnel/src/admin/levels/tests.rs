use super::*;
use crate::telemetry::fixtures::log;
use crate::telemetry::logging::Config;

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const OK: StatusCode = StatusCode::OK;

#[test]
fn a_dialogue_of_posts_lists_and_changes_levels() {
    let (logging, _) = log(Config { directives: "info,access=warn".into(), ..Config::default() });
    // Query, status, and the filter that is in force afterwards.
    let dialogue = [
        ("", OK, "access=warn,info"),
        ("level=debug", OK, "access=warn,debug"),
        ("level=ztunnel::proxy=trace", OK, "ztunnel::proxy=trace,access=warn,debug"),
        ("level=access:error,dns:off", OK, "ztunnel::proxy=trace,access=error,dns=off,debug"),
        ("level=dns%3Dinfo%2Cwarn", OK, "ztunnel::proxy=trace,access=error,dns=info,warn"),
        ("unknown=1", OK, "ztunnel::proxy=trace,access=error,dns=info,warn"),
        ("level=error&level=trace", OK, "ztunnel::proxy=trace,access=error,dns=info,trace"),
        ("level=debug&reset", OK, "access=warn,debug"),
        ("level=dns=debug&reset=false", OK, "access=warn,dns=debug,info"),
        ("reset", OK, "access=warn,info"),
        ("level=access", BAD, "access=warn,info"),
        ("level=debug,access=loud", BAD, "access=warn,info"),
        ("level=", BAD, "access=warn,info"),
        ("level=warning&reset", BAD, "access=warn,info"),
        ("level=off", OK, "access=warn,off"),
    ];
    for (query, expected, filter) in dialogue {
        let (status, text) = answer(&logging, &Method::POST, query);
        assert_eq!(status, expected, "{query}");
        let mut targets: Vec<_> = filter.split(',').collect();
        let at = targets.iter().take_while(|target| target.len() > "hickory_server::server=".len()).count();
        targets.insert(at, "hickory_server::server=off");
        assert_eq!(logging.filter().to_string(), targets.join(","), "{query}");
        if status == OK {
            assert_eq!(text, format!("current log level is {}\n", logging.filter()));
        }
    }
}

#[test]
fn what_is_refused_is_named_and_the_usage_follows() {
    let (logging, _) = log(Config::default());
    let usage = "\nusage: POST /logging\t\t\t\t\t\t(To list current level)\n\
                 usage: POST /logging?level=<level>\t\t\t\t(To change global levels)\n\
                 usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)\n\
                 \n\
                 hint: loglevel:\terror|warn|info|debug|trace|off\n\
                 hint: mod_name:\tthe module name, i.e. ztunnel::proxy\n";
    assert_eq!(
        answer(&logging, &Method::POST, "level=debug,loud"),
        (BAD, format!("Invalid level provided: debug,loud\n{usage}"))
    );
    for method in [Method::GET, Method::PUT, Method::HEAD] {
        assert_eq!(
            answer(&logging, &method, "level=debug"),
            (StatusCode::METHOD_NOT_ALLOWED, format!("Invalid HTTP method\n {usage}"))
        );
    }
    assert_eq!(logging.filter().to_string(), "hickory_server::server=off,info");
}
