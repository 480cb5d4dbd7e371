use super::*;

#[test]
fn openmetrics_is_served_to_those_who_accept_it_by_name() {
    let accepts = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        accepts_openmetrics(&headers)
    };
    assert!(accepts(&["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"]));
    assert!(accepts(&["text/plain", "text/html , Application/OpenMetrics-Text ; q=0.1"]));
    assert!(!accepts(&[]));
    assert!(!accepts(&["*/*", "text/plain;x=application/openmetrics-text", "application/openmetrics-textual"]));
}

#[test]
fn the_home_page_offers_only_what_there_is() {
    assert!(HOME.contains("<title>Ztunnel Admin</title>") && HOME.contains("Command</th><th>Description"));
    let links: Vec<_> = HOME.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["config_dump"], "links are followed with GET");
    assert!(!HOME.contains("<script") && !HOME.contains("://"));
}
