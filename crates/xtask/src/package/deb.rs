//! The Debian package (deb(5)): an `ar` archive of a version, what dpkg has to know, and the files.

use std::fmt::Write;
use std::io;

use super::archive::{self, File};
use super::{NAME, VERSION};

/// Stops what runs before its files go. Whether systemd runs is asked as Debian's own helpers do.
const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now ztunnel-redirect.service ztunnel.service || true
    fi
    # Rules without a ztunnel would cut the machine off.
    /usr/bin/ztunnel redirect remove >/dev/null || true
fi
";
/// Makes the units known; starting them is the administrator's to decide, since that changes where traffic goes.
const POSTINST: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ -n \"$2\" ]; then
        systemctl try-restart ztunnel.service || true
    fi
fi
";
const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
";

/// What Debian calls the processor that this was built for.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packs the files.
pub(super) fn pack(files: &[File], time: u64) -> io::Result<Vec<u8>> {
    let program = files.iter().find(|file| file.path == "usr/bin/ztunnel").map_or(&[][..], |file| &file.content);
    let size: usize = files.iter().map(|file| file.content.len().div_ceil(1024)).sum();
    let control = format!(
        "Package: {NAME}\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: the authors of ztunnel <root@localhost>\n\
         Installed-Size: {size}\nDepends: libc6 (>= {}), libgcc-s1\nSection: net\nPriority: optional\n\
         Description: proxy of an ambient mesh\n \
         Carries this machine's TCP connections through mutual TLS and lets in what\n authorization policies allow.\n",
        architecture(),
        needed_libc(program)
    );
    let settings: Vec<&File> = files.iter().filter(|file| file.path.starts_with("etc/")).collect();
    let mut conffiles = String::new();
    for file in settings {
        // Writing to a string cannot fail.
        let _ = writeln!(conffiles, "/{}", file.path);
    }
    let about = |name: &str, mode, text: &str| File { path: name.to_owned(), mode, content: text.as_bytes().to_vec() };
    let about = [
        about("conffiles", archive::PLAIN, &conffiles),
        about("control", archive::PLAIN, &control),
        about("postinst", archive::PROGRAM, POSTINST),
        about("postrm", archive::PROGRAM, POSTRM),
        about("prerm", archive::PROGRAM, PRERM),
    ];
    let mut deb = b"!<arch>\n".to_vec();
    member(&mut deb, "debian-binary", time, b"2.0\n");
    member(&mut deb, "control.tar.gz", time, &archive::pack("", &about, time)?);
    member(&mut deb, "data.tar.gz", time, &archive::pack("", files, time)?);
    Ok(deb)
}

/// Appends a member of an `ar` archive.
fn member(archive: &mut Vec<u8>, name: &str, time: u64, content: &[u8]) {
    archive.extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", content.len()).bytes());
    archive.extend(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

/// The newest version of the C library that one of the program's symbols asks for.
fn needed_libc(program: &[u8]) -> String {
    const TAG: &[u8] = b"GLIBC_2.";
    let minor = |at: usize| -> Option<u32> {
        let digits = program[at + TAG.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&program[at + TAG.len()..][..digits]).ok()?.parse().ok()
    };
    let tags = program.windows(TAG.len()).enumerate().filter(|(_, window)| *window == TAG);
    format!("2.{}", tags.filter_map(|(at, _)| minor(at)).max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<File> {
        let file = |path: &str, content: &[u8]| File { path: path.to_owned(), mode: 0o644, content: content.to_vec() };
        vec![file("etc/ztunnel/mesh.yaml", b"{}"), file("usr/bin/ztunnel", b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.\0")]
    }

    #[test]
    fn the_same_files_give_the_same_package_and_another_time_another() {
        assert_eq!(pack(&files(), 1_700_000_000).unwrap(), pack(&files(), 1_700_000_000).unwrap());
        assert_ne!(pack(&files(), 1_700_000_000).unwrap(), pack(&files(), 1_700_000_001).unwrap());
    }

    #[test]
    fn members_have_headers_of_sixty_bytes_and_begin_at_even_places() {
        let mut archive = Vec::new();
        member(&mut archive, "odd", 7, b"abc");
        assert_eq!((archive.len(), &archive[58..60]), (64, &b"`\n"[..]));
    }

    #[test]
    fn the_c_library_is_the_newest_that_is_asked_for() {
        assert_eq!(needed_libc(&files()[1].content), "2.34");
    }
}
