//! Finds every path that a source file names, in its `use` declarations, its code and its macros, and
//! holds them against the import table.

use syn::visit::{self, Visit};

/// What one room may name.
pub struct Rule {
    /// The room: a folder of `src`.
    pub room: &'static str,
    /// Other rooms, or parts of them (`agent::ports`).
    pub rooms: &'static [&'static str],
    /// Crates of `[dependencies]`. The standard library is free to all.
    pub crates: &'static [&'static str],
}

/// Where a file is in the module tree.
pub struct Room {
    /// Names of the modules from the crate's root to the file's own.
    pub path: Vec<String>,
}

/// One line per violation.
pub fn check(room: &Room, source: &str, table: &[Rule], dependencies: &[String]) -> Vec<String> {
    let name = &room.path[0];
    let Some(rule) = table.iter().find(|rule| rule.room == name) else {
        return vec![format!("the room {name} has no rule")];
    };
    let file = match syn::parse_file(source) {
        Ok(file) => file,
        Err(error) => return vec![format!("cannot be parsed: {error}")],
    };
    let mut names = Names { at: room.path.clone(), found: Vec::new() };
    names.visit_file(&file);
    let mut broken: Vec<String> =
        names.found.iter().filter_map(|path| violation(path, rule, dependencies)).collect();
    broken.sort();
    broken.dedup();
    broken
}

/// Why a path, which begins with `crate` or with a name, must not be in this room.
fn violation(path: &[String], rule: &Rule, dependencies: &[String]) -> Option<String> {
    let room = rule.room;
    if path[0] != "crate" {
        let foreign = dependencies.contains(&path[0]) && !rule.crates.contains(&path[0].as_str());
        return foreign.then(|| format!("{room} must not use the crate {}", path[0]));
    }
    let Some(other) = path.get(1) else {
        return Some(format!("{room} must not take the whole crate by one name"));
    };
    if other == "*" {
        return Some(format!("{room} must not take everything of the crate"));
    }
    let named = path[1..].join("::");
    let within = |allowed: &&str| named == **allowed || named.starts_with(&format!("{allowed}::"));
    let fine = other == room || rule.rooms.iter().any(within);
    (!fine).then(|| format!("{room} must not name {named}"))
}

/// Whether a file holds unsafe code, or allows it to itself.
pub fn unsafe_code(source: &str) -> bool {
    struct Finder(bool);
    impl Visit<'_> for Finder {
        fn visit_expr_unsafe(&mut self, _: &syn::ExprUnsafe) {
            self.0 = true;
        }

        fn visit_signature(&mut self, signature: &syn::Signature) {
            self.0 |= signature.unsafety.is_some();
            visit::visit_signature(self, signature);
        }

        fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
            self.0 |= item.unsafety.is_some();
            visit::visit_item_impl(self, item);
        }

        fn visit_macro(&mut self, mac: &syn::Macro) {
            self.0 |= mac.tokens.to_string().split_whitespace().any(|word| word == "unsafe");
        }
    }
    let mut finder = Finder(false);
    finder.visit_file(&syn::parse_file(source).expect("the crate compiles"));
    finder.0
}

/// Collects paths, made absolute where they begin with `crate`, `self` or `super`.
struct Names {
    /// The module that is being read.
    at: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Names {
    fn add(&mut self, mut path: Vec<String>) {
        let mut at = self.at.clone();
        let mut relative = false;
        while path.first().is_some_and(|first| first == "self" || first == "super") {
            relative = true;
            if path.remove(0) == "super" {
                at.pop();
            }
        }
        if relative {
            path = at.into_iter().chain(path).collect();
            path.insert(0, "crate".to_owned());
        }
        if !path.is_empty() {
            self.found.push(path);
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &dyn ToString| {
            let mut path = before.to_vec();
            path.push(name.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            // `use a::{self}` names `a`.
            syn::UseTree::Name(name) if name.ident == "self" && !before.is_empty() => {
                self.add(before.to_vec());
            }
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(with(&"*")),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, before);
                }
            }
        }
    }

    /// Macros' insides are not parsed: every chain of names with `::` between them counts.
    fn tokens(&mut self, tokens: &str) {
        let mut words = tokens.replace("::", " :: ");
        words = words
            .chars()
            .map(|c| {
                if c.is_alphanumeric() || "_:".contains(c) {
                    c.to_string()
                } else {
                    format!(" {c} ")
                }
            })
            .collect();
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut at = 0;
        while at < words.len() {
            let mut chain = vec![words[at].to_owned()];
            while words.get(at + 1) == Some(&"::") && at + 2 < words.len() {
                chain.push(words[at + 2].to_owned());
                at += 2;
            }
            let name = chain[0].starts_with(|c: char| c.is_alphabetic() || c == '_');
            if name && chain.len() > 1 {
                self.add(chain);
            }
            at += 1;
        }
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        self.at.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_item_extern_crate(&mut self, item: &'a syn::ItemExternCrate) {
        self.add(vec![item.ident.to_string()]);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'a syn::Macro) {
        self.tokens(&mac.tokens.to_string());
        visit::visit_macro(self, mac);
    }

    fn visit_meta_list(&mut self, list: &'a syn::MetaList) {
        self.tokens(&list.tokens.to_string());
        visit::visit_meta_list(self, list);
    }
}
