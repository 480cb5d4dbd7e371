//! The HTTP/2 machine from outside: scripted dialogues, two machines on a hostile link, and the `h2` crate as a
//! second opinion in both roles.

mod cuts;
mod dialogues;
mod floods;
mod oracle;
mod pair;
mod wire;
