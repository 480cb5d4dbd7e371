//! Generated code that is checked in: the protobuf messages and services of `istio-api`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use prost_build::{Config, Module};

/// Generated files by their names.
type Files = BTreeMap<String, String>;

const FILES: [&str; 5] = ["zds.proto", "workload.proto", "security.proto", "ca.proto", "discovery.proto"];

/// What the proto files under `api` (the folder of `istio-api`) turn into.
///
/// # Errors
/// If a proto file is missing or wrong; the message names it and the line.
pub fn messages(api: &Path) -> io::Result<Files> {
    let proto = api.join("proto");
    let parsed = protox::compile(FILES, [&proto]).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let mut config = Config::new();
    // Sorted maps make output and tests repeatable.
    config.btree_map(["."]);
    // A push may be large; what it carries is decoded from the buffer that it arrived in.
    config.bytes([".envoy.service.discovery.v3.Payload"]);
    let services = tonic_prost_build::configure().server_mod_attribute(".", "#[cfg(feature = \"server\")]");
    config.service_generator(services.service_generator());
    let modules = parsed.file.into_iter().map(|file| (Module::from_protobuf_package_name(file.package()), file));
    let generated = config.generate(modules.collect())?;
    let named = generated.into_iter().map(|(module, code)| (module.to_file_name_or("_"), code));
    // The well-known types are `prost-types`'.
    Ok(named.filter(|(name, _)| !name.starts_with("google.")).collect())
}

/// Writes the generated files.
///
/// # Errors
/// As for [`messages`], or if a file cannot be written.
pub fn write(api: &Path) -> io::Result<()> {
    let folder = api.join("src/generated");
    fs::create_dir_all(&folder)?;
    for (name, code) in messages(api)? {
        fs::write(folder.join(name), code)?;
    }
    Ok(())
}

/// Writes the pages under `docs` that come from tables in the code: settings, metrics and fields of the access log of
/// `ztunnel`, causes in `mesh`.
///
/// # Errors
/// If what prints them does not build, or a page cannot be written.
pub fn write_manual(workspace: &Path) -> io::Result<()> {
    for (package, example, page) in [
        ("ztunnel", "manual", "configuration.md"),
        ("ztunnel", "metrics", "metrics.md"),
        ("ztunnel", "access_log", "access-log.md"),
        ("mesh", "troubleshooting", "troubleshooting.md"),
    ] {
        let mut print = Command::new("cargo");
        print.current_dir(workspace).args(["run", "--quiet", "--package", package, "--example", example]);
        let printed = print.stderr(Stdio::inherit()).output()?;
        if !printed.status.success() {
            return Err(io::Error::other(format!("printing docs/{page} failed")));
        }
        fs::write(workspace.join("docs").join(page), printed.stdout)?;
    }
    Ok(())
}

/// Names of files that are not what the proto files turn into, or that no proto file turns into.
///
/// # Errors
/// As for [`messages`], or if the folder cannot be read.
pub fn stale(api: &Path) -> io::Result<Vec<String>> {
    let folder = api.join("src/generated");
    let wanted = messages(api)?;
    let mut there = Files::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        there.insert(entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?);
    }
    let names: BTreeSet<&String> = wanted.keys().chain(there.keys()).collect();
    Ok(names.into_iter().filter(|name| wanted.get(*name) != there.get(*name)).cloned().collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_generated_messages_are_those_of_the_proto_files() {
        let stale = super::stale(&crate::workspace().join("crates/istio-api")).unwrap();
        assert!(stale.is_empty(), "{stale:?} differ: run `cargo xtask generate`");
    }
}
