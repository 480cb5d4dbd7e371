//! The table of hosts of this machine (hosts(5)), which is looked at before anybody is asked.

use std::net::IpAddr;

/// The addresses that the table has of a name, in its order; lines that make no sense are skipped.
#[must_use]
pub fn addresses(table: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then(|| ip.to_canonical())
    };
    table.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_names_the_host_counts() {
        let table =
            "127.0.0.1 localhost\n# 192.0.2.9 db\n192.0.2.1\tDB.example db # db2\nnobody db\n::1 x db.\n192.0.2.3\n";
        let found = |name: &str| addresses(table, name).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(found("db"), "192.0.2.1 ::1");
        assert_eq!(found("db.example."), "192.0.2.1");
        assert_eq!((found("db2"), found("192.0.2.3")), (String::new(), String::new()));
    }
}
