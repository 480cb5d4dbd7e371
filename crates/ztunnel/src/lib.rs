//! The daemon: sockets, namespaces, files, clocks and tasks around the two machines, `hbone` and `mesh`.
#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod crypto;
pub mod dns;
pub mod drain;
pub mod export;
pub mod files;
pub mod identity;
pub mod inpod;
pub mod memory;
pub mod net;
pub mod proxy;
pub mod state;
pub mod telemetry;
pub mod version;
pub mod xds;
