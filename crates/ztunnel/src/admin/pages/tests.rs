use super::*;

#[test]
fn the_home_page_offers_only_what_there_is() {
    assert!(HOME.contains("<title>Ztunnel Admin</title>") && HOME.contains("Command</th><th>Description"));
    let links: Vec<_> = HOME.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let expected = ["config_dump", "debug/connections", "debug/failures", "debug/summary"];
    assert_eq!(links, expected, "links are followed with GET");
}

#[test]
fn the_home_page_brings_everything_and_takes_no_text_for_markup() {
    assert!(!HOME.contains("://") && !HOME.contains(" src=\"") && HOME.len() < 16 << 10, "{}", HOME.len());
    assert!(!HOME.contains("innerHTML") && !HOME.contains("insertAdjacentHTML") && !HOME.contains("document.write"));
}
