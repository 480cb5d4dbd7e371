//! The source files of a crate, found as the compiler finds them: from its root along its `mod` lines.

use std::path::Path;
use std::{fs, io};

use super::mentions::{self, Mentions};

/// One source file.
#[derive(Debug)]
pub(super) struct Source {
    /// The crate's name.
    pub(super) package: &'static str,
    /// The file below the root of the workspace.
    pub(super) file: String,
    /// Which module it is, from the root of the crate; empty for the root itself.
    pub(super) module: Vec<String>,
    /// What it says.
    pub(super) mentions: Mentions,
}

impl Source {
    /// Reads `text` as the file of `module`.
    pub(super) fn new(package: &'static str, file: String, module: Vec<String>, text: &str) -> io::Result<Self> {
        let mentions = mentions::read(text, &module).map_err(|e| io::Error::other(format!("{file}: {e}")))?;
        Ok(Self { package, file, module, mentions })
    }

    /// The module directly below the root that the file belongs to.
    pub(super) fn top(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }
}

/// All source files of `crates/<package>`, tests left out.
pub(super) fn sources(workspace: &Path, package: &'static str) -> io::Result<Vec<Source>> {
    let src = format!("crates/{package}/src");
    let mut found = Vec::new();
    let roots = [("lib.rs", vec![]), ("main.rs", vec!["main".to_owned()])];
    let mut open: Vec<(String, Vec<String>)> = roots
        .into_iter()
        .filter(|(name, _)| workspace.join(&src).join(name).exists())
        .map(|(name, module)| (format!("{src}/{name}"), module))
        .collect();
    while let Some((file, module)) = open.pop() {
        let text = fs::read_to_string(workspace.join(&file)).map_err(|e| io::Error::other(format!("{file}: {e}")))?;
        let source = Source::new(package, file, module, &text)?;
        open.extend(source.mentions.modules.iter().map(|m| (format!("{src}/{}.rs", m.join("/")), m.clone())));
        found.push(source);
    }
    if found.is_empty() {
        return Err(io::Error::other(format!("{src}: neither lib.rs nor main.rs")));
    }
    Ok(found)
}
