//! Attribute numbers of nf_tables messages (`linux/netfilter/nf_tables.h`), for which the libc crate has no names.

pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const USER_DATA: u16 = 6;
}

/// What `nft` keeps with objects, and the kernel does not look at (`libnftnl/udata.h`).
pub(super) mod user_data {
    pub(in super::super) const COMMENT: u8 = 0;
}

pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
}

pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const USER_DATA: u16 = 7;
}

pub(super) mod expression {
    pub(in super::super) const LIST_ELEMENT: u16 = 1;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const BODY: u16 = 2;
}

pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
}

pub(super) mod meta {
    pub(in super::super) const TO: u16 = 1;
    pub(in super::super) const KEY: u16 = 2;
    pub(in super::super) const FROM: u16 = 3;
}

pub(super) mod ct {
    pub(in super::super) const TO: u16 = 1;
    pub(in super::super) const KEY: u16 = 2;
    pub(in super::super) const FROM: u16 = 4;
    /// The key for the zone.
    pub(in super::super) const ZONE: i32 = 17;
}

pub(super) mod payload {
    pub(in super::super) const TO: u16 = 1;
    pub(in super::super) const BASE: u16 = 2;
    pub(in super::super) const OFFSET: u16 = 3;
    pub(in super::super) const LENGTH: u16 = 4;
}

pub(super) mod bitwise {
    pub(in super::super) const FROM: u16 = 1;
    pub(in super::super) const TO: u16 = 2;
    pub(in super::super) const LENGTH: u16 = 3;
    pub(in super::super) const MASK: u16 = 4;
    pub(in super::super) const XOR: u16 = 5;
}

pub(super) mod compare {
    pub(in super::super) const FROM: u16 = 1;
    pub(in super::super) const OPERATION: u16 = 2;
    pub(in super::super) const DATA: u16 = 3;
}

pub(super) mod immediate {
    pub(in super::super) const TO: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
}

pub(super) mod redirect {
    pub(in super::super) const FIRST_PORT_FROM: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 3;
    /// The flag that a port is given.
    pub(in super::super) const PORT_SPECIFIED: u32 = 2;
}

pub(super) mod counter {
    pub(in super::super) const BYTES: u16 = 1;
    pub(in super::super) const PACKETS: u16 = 2;
}

pub(super) mod socket {
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const TO: u16 = 2;
    pub(in super::super) const LEVEL: u16 = 3;
    /// The key for the control group, version 2.
    pub(in super::super) const CGROUP_V2: u32 = 3;
}

pub(super) mod fib {
    pub(in super::super) const TO: u16 = 1;
    pub(in super::super) const RESULT: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    /// What is asked for: the type of the address.
    pub(in super::super) const ADDRESS_TYPE: u32 = 3;
    /// Of the destination.
    pub(in super::super) const OF_DESTINATION: u32 = 2;
}

/// Targets of iptables, in rules of nf_tables.
pub(super) mod target {
    pub(in super::super) const NAME: u16 = 1;
}
