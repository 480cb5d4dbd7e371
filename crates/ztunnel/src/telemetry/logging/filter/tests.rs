use super::*;

fn setting(text: &str) -> String {
    Filter::from_str(text).unwrap().to_string()
}

#[test]
fn settings_print_with_the_longest_target_first_and_the_global_level_last() {
    assert_eq!(Filter::from_str(DEFAULT).unwrap().to_string(), "hickory_server::server=off,info");
    assert_eq!(setting("access=debug,info"), "hickory_server::server=off,access=debug,info");
    assert_eq!(setting("WARN,ztunnel::proxy=trace"), "hickory_server::server=off,ztunnel::proxy=trace,warn");
    assert_eq!(setting("hickory_server::server=debug,info"), "hickory_server::server=debug,info");
    assert_eq!(setting("info, access=off"), setting("info,access=off"));
    assert_eq!(Filter::default().to_string(), setting("info"));
}

#[test]
fn an_empty_setting_means_errors_only_and_a_bare_word_a_target_in_full() {
    let errors = Filter::from_str("").unwrap();
    assert!(errors.enables("access", &Level::ERROR) && !errors.enables("access", &Level::WARN));
    let only = Filter::from_str("access").unwrap();
    assert!(only.enables("access", &Level::TRACE) && !only.enables("ztunnel::proxy", &Level::ERROR));
}

#[test]
fn the_longest_prefix_decides() {
    let filter = Filter::from_str("info,ztunnel=warn,ztunnel::proxy=debug").unwrap();
    assert!(filter.enables("ztunnel::proxy::pool", &Level::DEBUG));
    assert!(!filter.enables("ztunnel::xds", &Level::INFO));
    assert!(filter.enables("access", &Level::INFO));
}

#[test]
fn settings_that_cannot_be_read_are_errors_that_name_them() {
    for text in ["access=loud", "a=b=c", "info,access=verbose"] {
        let error = Filter::from_str(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{text}` is not a comma-separated list")), "{error}");
    }
}

#[test]
fn the_most_verbose_level_of_any_target_is_known() {
    assert_eq!(Filter::from_str("warn,access=trace").unwrap().most_verbose(), LevelFilter::TRACE);
    assert_eq!(Filter::from_str("off").unwrap().most_verbose(), LevelFilter::OFF);
}

#[test]
fn directives_are_levels_for_all_or_for_a_target_by_equals_sign_or_colon() {
    let read = |text: &str| {
        let parts = directives(text).unwrap().into_iter();
        let shown: Vec<_> = parts.map(|d| format!("{}>{}", d.target.unwrap_or_default(), d.level)).collect();
        shown.join(" ")
    };
    assert_eq!(read("debug"), ">debug");
    assert_eq!(read("OFF,access=Trace"), ">off access>trace");
    assert_eq!(read("access:debug"), "access>debug");
    assert_eq!(read("ztunnel::proxy:debug,ztunnel::xds=warn"), "ztunnel::proxy>debug ztunnel::xds>warn");
    assert_eq!(read("debug, access=off"), ">debug access>off");
    assert_eq!(read("info,info"), ">info >info");
}

#[test]
fn anything_else_is_refused_whole() {
    let bad = ["", "warning", "critical", "3", "access", "access=", "=debug", "access=loud", ":debug", "a::debug"];
    for text in bad.into_iter().chain(["debug,", "a[b]=debug", "a=b=debug", "access = debug"]) {
        assert_eq!(directives(text), Err(InvalidLevel(text.to_owned())), "{text}");
    }
}

#[test]
fn changes_replace_the_same_target_and_leave_the_others() {
    let filter = Filter::from_str("info,access=off").unwrap();
    let changed = filter.with(directives("debug,access=warn,access:error").unwrap());
    assert_eq!(changed.to_string(), "hickory_server::server=off,access=error,debug");
    assert_eq!(filter.with([]).to_string(), filter.to_string());
}
