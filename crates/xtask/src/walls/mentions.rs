//! Which paths a source file mentions, and on which lines.
//!
//! Works on tokens, so that comments, strings and the insides of macros are what the compiler takes them for. Test code
//! (`#[cfg(test)]`) is skipped. It does not resolve types: a method is known by its name alone.

use std::collections::BTreeMap;
use std::io;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// What one file says, without its tests.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// Paths of at least two segments, those of `use` lines included; a glob ends in `*`. What begins in this crate
    /// begins with `crate`, and what a `use` line renamed has its own name.
    pub(super) paths: Vec<(Vec<String>, usize)>,
    /// Names after a dot.
    pub(super) members: Vec<(String, usize)>,
    /// Names before an exclamation mark.
    pub(super) macros: Vec<(String, usize)>,
    /// Modules that live in files of their own, from the root of the crate.
    pub(super) modules: Vec<Vec<String>>,
}

/// Reads the file of module `module` (empty for the root of a crate).
pub(super) fn read(text: &str, module: &[String]) -> io::Result<Mentions> {
    let tokens: TokenStream = text.parse().map_err(|e| io::Error::other(format!("not Rust: {e}")))?;
    let mut reader = Reader::default();
    reader.items(tokens, &mut module.to_vec());
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    mentions: Mentions,
    /// Full paths by the names that `use` lines gave them.
    names: BTreeMap<String, Vec<Vec<String>>>,
}

impl Reader {
    fn items(&mut self, stream: TokenStream, module: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += match token {
                TokenTree::Punct(p) if p.as_char() == '#' => self.attribute(&tokens[at..]),
                TokenTree::Punct(p) if p.as_char() == '.' => self.member(&tokens[at..]),
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
                TokenTree::Group(group) => {
                    self.items(group.stream(), module);
                    1
                }
                TokenTree::Ident(ident) if ident == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let end = until(&tokens[at..], is_semicolon);
                    self.used(&tokens[at + 1..at + end], &[], module);
                    end + 1
                }
                TokenTree::Ident(ident) if ident == "mod" => self.module(&tokens[at..], module),
                TokenTree::Ident(_) => self.path(&tokens[at..], module),
            };
        }
    }

    /// Skips an attribute, and what it is about if that is a test.
    fn attribute(&self, tokens: &[TokenTree]) -> usize {
        let bang = usize::from(is_punct(tokens.get(1), '!'));
        let Some(TokenTree::Group(group)) = tokens.get(1 + bang) else { return 1 };
        let attribute = 2 + bang;
        if !is_test(group) {
            return attribute;
        }
        let rest = &tokens[attribute..];
        attribute + until(rest, |token| is_semicolon(token) || is_braces(token)) + 1
    }

    fn member(&mut self, tokens: &[TokenTree]) -> usize {
        if let Some(TokenTree::Ident(name)) = tokens.get(1) {
            self.mentions.members.push((name.to_string(), name.span().start().line));
            return 2;
        }
        1
    }

    fn module(&mut self, tokens: &[TokenTree], module: &mut Vec<String>) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else { return 1 };
        module.push(name.to_string());
        match tokens.get(2) {
            Some(TokenTree::Group(body)) => self.items(body.stream(), module),
            _ => self.mentions.modules.push(module.clone()),
        }
        module.pop();
        3
    }

    /// One branch, or several between commas, of a `use` line.
    fn used(&mut self, tokens: &[TokenTree], stem: &[String], module: &[String]) {
        for branch in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut path = stem.to_vec();
            let mut name = None;
            let mut line = 0;
            for (i, token) in branch.iter().enumerate() {
                match token {
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.used(&inner, &path, module);
                        line = 0;
                        break;
                    }
                    TokenTree::Ident(ident) if ident == "as" => {
                        name = branch.get(i + 1).map(ToString::to_string);
                        break;
                    }
                    TokenTree::Ident(ident) if ident == "self" && !path.is_empty() => line = ident.span().start().line,
                    TokenTree::Ident(ident) => {
                        path.push(ident.to_string());
                        line = ident.span().start().line;
                    }
                    TokenTree::Punct(p) if p.as_char() == '*' => path.push("*".to_owned()),
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            if let (Some(last), 1..) = (path.last().cloned(), line) {
                let path = absolute(path, module);
                self.names.entry(name.unwrap_or(last)).or_default().push(path.clone());
                self.mentions.paths.push((path, line));
            }
        }
    }

    /// A name, a macro's name, or names with `::` between them.
    fn path(&mut self, tokens: &[TokenTree], module: &[String]) -> usize {
        let mut path = Vec::new();
        let mut read = 0;
        while let Some(TokenTree::Ident(ident)) = tokens.get(read) {
            path.push(ident.to_string());
            read += 1;
            let follows = is_punct(tokens.get(read), ':') && is_punct(tokens.get(read + 1), ':');
            if !follows || !matches!(tokens.get(read + 2), Some(TokenTree::Ident(_))) {
                break;
            }
            read += 2;
        }
        let line = tokens.first().map_or(0, |token| token.span().start().line);
        if is_punct(tokens.get(read), '!') && matches!(tokens.get(read + 1), Some(TokenTree::Group(_))) {
            let name = path.last().cloned().unwrap_or_default();
            self.mentions.macros.push((name, line));
        }
        if path.len() > 1 {
            self.mentions.paths.push((absolute(path, module), line));
        }
        read.max(1)
    }

    /// Replaces names that `use` lines gave by what they stand for.
    fn finish(mut self) -> Mentions {
        let paths = std::mem::take(&mut self.mentions.paths);
        for (path, line) in paths {
            let renamed = path.first().and_then(|first| self.names.get(first));
            for full in renamed.into_iter().flatten().filter(|full| full.first() != path.first()) {
                let whole = full.iter().chain(&path[1..]).cloned().collect();
                self.mentions.paths.push((whole, line));
            }
            self.mentions.paths.push((path, line));
        }
        self.mentions
    }
}

/// `self::` and `super::` from the root of the crate.
fn absolute(path: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    let here = usize::from(path.first().is_some_and(|first| first == "self"));
    if ups + here == 0 {
        return path;
    }
    let kept = module.len().saturating_sub(ups);
    let root = std::iter::once("crate".to_owned());
    root.chain(module[..kept].iter().cloned()).chain(path.into_iter().skip(ups + here)).collect()
}

/// Whether an attribute keeps something out of all builds but those of tests.
fn is_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

fn until(tokens: &[TokenTree], is_end: impl Fn(&TokenTree) -> bool) -> usize {
    tokens.iter().position(is_end).unwrap_or(tokens.len())
}

fn is_semicolon(token: &TokenTree) -> bool {
    is_punct(Some(token), ';')
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == wanted)
}
