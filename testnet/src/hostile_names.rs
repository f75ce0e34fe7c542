//! Names that have broken other systems, and what must become of each here.
//!
//! The verdicts are written down by hand for each category and not asked from the type that is tested. Accepted names
//! are distinct also for systems that ignore case, and none is a folder of another, so that all can be in one library;
//! names that some system takes for one stand in [`twins`].

use std::collections::BTreeSet;

/// What must become of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Harmless here: it is shared under this very name.
    Accepted,
    /// A person may give it, and it is shared under this name; from another member it is refused.
    Normalised(String),
    /// Never shared, whoever gives it.
    Refused,
}

/// A name and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostileName {
    /// What is hostile about it.
    pub category: &'static str,
    /// The name.
    pub name: String,
    /// What must become of it.
    pub verdict: Verdict,
}

/// All of them, each once.
pub fn all() -> Vec<HostileName> {
    let mut seen = BTreeSet::new();
    [refused(), normalised(), accepted()]
        .concat()
        .into_iter()
        .filter(|n| seen.insert(n.name.clone()))
        .collect()
}

/// Names of files that no text can name: bytes that are not UTF-8, lone surrogates among them.
pub fn not_unicode() -> Vec<Vec<u8>> {
    let bad: [&[u8]; 8] = [
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xc3",
    ];
    bad.into_iter().map(|bad| [b"a", bad, b".txt"].concat()).collect()
}

/// Names of which some system takes all of a group for one.
pub fn twins() -> Vec<Vec<&'static str>> {
    vec![
        vec!["Foto.jpg", "foto.JPG", "FOTO.JPG"],
        vec!["Ver\u{e3}o.txt", "VER\u{c3}O.TXT"],
        vec!["stra\u{df}e.txt", "STRASSE.txt", "stra\u{1e9e}e.txt"],
        vec!["istanbul.txt", "\u{130}STANBUL.txt", "\u{131}stanbul.txt", "ISTANBUL.txt"],
        vec!["\u{fb01}le.txt", "FILE.txt"],
        vec![
            "\u{3c3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}.txt",
            "\u{3a3}\u{38a}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3a3}.txt",
        ],
        vec!["\u{17f}ecret.txt", "Secret.txt"],
        vec!["\u{2764}.png", "\u{2764}\u{fe0f}.png"],
        vec!["Pasta/a.txt", "pasta/a.txt", "PASTA/A.txt"],
        // A file where another name needs a folder.
        vec!["Plano", "plano/b.txt"],
    ]
}

fn of(
    category: &'static str,
    verdict: &Verdict,
    names: impl IntoIterator<Item = String>,
) -> Vec<HostileName> {
    names.into_iter().map(|name| HostileName { category, name, verdict: verdict.clone() }).collect()
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Each character within, before and after a name.
fn with(characters: impl IntoIterator<Item = char>) -> Vec<String> {
    characters.into_iter().map(|c| format!("fatura{c}fdp.exe")).collect()
}

fn refused() -> Vec<HostileName> {
    let categories: Vec<(&'static str, Vec<String>)> = vec![
        ("traversal", traversal()),
        ("absolute", texts(&["/", "//", "/etc/passwd", "//server/share", "/a", "///", "/./a", "/.."])),
        ("nothing", texts(&["", "a//b", "a/", "a/b/", "a//", "a///b"])),
        ("control", with((0..32).chain(127..160).filter_map(char::from_u32))),
        ("backslash", texts(&["\\", "a\\b", "..\\a", "\\\\server\\share", "\\\\?\\C:\\a", "\\\\.\\PhysicalDrive0"])),
        ("drive", texts(&["C:", "C:a", "c:\\a", "c:/a", "Z:..", "a/C:b", "file:///etc/passwd", "http://a/b"])),
        ("stream", texts(&["a.txt:oculto", "a.txt::$DATA", "a:$I30:$INDEX_ALLOCATION", ":a"])),
        ("wildcard", with("*?\"<>|:\\".chars())),
        ("device", devices()),
        ("ending", endings()),
        ("bidirectional", with("\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}".chars())),
        ("isolates", with(('\u{2060}'..='\u{206f}').chain('\u{fff9}'..='\u{fffb}'))),
        ("unseen", with("\u{ad}\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{200b}\u{200c}\u{200d}\u{2800}\u{3164}\u{feff}\u{ffa0}".chars())),
        ("unseen marks", with(('\u{180b}'..='\u{180f}').chain('\u{13430}'..='\u{13438}').chain('\u{1d173}'..='\u{1d17a}'))),
        ("separators", with("\u{2028}\u{2029}".chars())),
        ("tags", with(('\u{e0001}'..='\u{e0001}').chain('\u{e0020}'..='\u{e0031}').chain(['\u{e007f}', '\u{e0100}', '\u{e01ef}']))),
        ("private use", with("\u{e000}\u{f8ff}\u{f0000}\u{ffffd}\u{100000}\u{10fffd}".chars())),
        ("non-characters", with("\u{fdd0}\u{fdef}\u{fffe}\u{ffff}\u{1fffe}\u{1ffff}\u{dffff}\u{10ffff}".chars())),
        ("replacement", with("\u{fff0}\u{fff8}".chars())),
        ("markup", texts(&["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "<!--", "<a href=x>"])),
        ("escape sequences", texts(&["\u{1b}[2J", "\u{1b}]0;dono\u{7}", "\u{9b}31m", "a\rb", "a\nb: 200 OK", "\u{8}\u{8}\u{8}"])),
        ("header", texts(&["a\r\nSet-Cookie: a=b", "a\n\ndata: x", "a\u{85}b"])),
        ("too long", too_long()),
        ("marks", marks()),
        ("emoji of several", texts(&["\u{1f469}\u{200d}\u{1f4bb}.png", "\u{1f3f4}\u{200d}\u{2620}.png"])),
    ];
    categories.into_iter().flat_map(|(category, names)| of(category, &Verdict::Refused, names)).collect()
}

fn traversal() -> Vec<String> {
    let mut names = texts(&[
        ".",
        "..",
        "./a",
        "a/.",
        "a/..",
        "a/../b",
        "a/./b",
        "a/../../b",
        "a/b/../../../c",
        "./..",
        "../",
        "..//a",
        ".../a",
        "a/...",
        "a/. /b",
        "a/ ../b",
        "a/.. /b",
        "..;/a./",
    ]);
    for up in 1..=8 {
        for target in ["a", "etc/passwd", ".ssh/authorized_keys", "node.db", "identity.key"] {
            names.push(format!("{}{target}", "../".repeat(up)));
        }
    }
    names
}

fn devices() -> Vec<String> {
    let numbered = ["COM", "LPT"]
        .into_iter()
        .flat_map(|port| "0123456789\u{b9}\u{b2}\u{b3}".chars().map(move |number| format!("{port}{number}")));
    let named = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].map(str::to_owned);
    let forms = |device: String| {
        let lower = device.to_lowercase();
        [
            format!("{lower}.txt"),
            format!("{lower}.tar.gz"),
            format!("a/{device}"),
            format!("{device} .txt"),
            format!("{lower}/a"),
            device,
        ]
    };
    named.into_iter().chain(numbered).flat_map(forms).collect()
}

fn endings() -> Vec<String> {
    let mut names =
        texts(&["a.", "a..", "...", "....", "a. ", "a .", " ", "  ", "a /b", "a./b", " a", "b/ a"]);
    // What is white, and no line end: Windows drops one of them, people see none.
    for white in "\u{20}\u{a0}\u{1680}\u{2002}\u{2003}\u{2009}\u{200a}\u{202f}\u{205f}\u{3000}".chars() {
        names.push(format!("conta.pdf{white}"));
        names.push(format!("{white}conta.pdf"));
    }
    names
}

fn too_long() -> Vec<String> {
    let long = "n".repeat(200);
    vec![
        "n".repeat(201),
        "n".repeat(255),
        "n".repeat(256),
        "n".repeat(4096),
        // Few characters, and yet more bytes than a component may have.
        "\u{e9}".repeat(101),
        "\u{65e5}".repeat(67),
        "\u{1f600}".repeat(51),
        format!("a/{}", "n".repeat(201)),
        [&long[..]; 6].join("/"),
        "a/".repeat(32) + "a",
        "a/".repeat(2000) + "a",
    ]
}

fn marks() -> Vec<String> {
    let flood = |count| format!("a{}.txt", "\u{334}\u{321}\u{489}".repeat(count));
    let mut names = vec![flood(3), flood(6), flood(20), "\u{334}a".to_owned(), "a/\u{338}b".to_owned()];
    names.push("\u{489}".to_owned());
    names.push(format!("q{}", "\u{336}".repeat(9)));
    names
}

fn normalised() -> Vec<HostileName> {
    [
        ("vera\u{303}o 1.txt", "ver\u{e3}o 1.txt"),
        ("cafe\u{301} 2.txt", "caf\u{e9} 2.txt"),
        ("a\u{30a} 3.txt", "\u{e5} 3.txt"),
        ("\u{212b} 4.txt", "\u{c5} 4.txt"),
        ("\u{2126} 5.txt", "\u{3a9} 5.txt"),
        ("\u{212a} 6.txt", "K 6.txt"),
        ("\u{1112}\u{1161}\u{11ab} 7.txt", "\u{d55c} 7.txt"),
        ("q\u{307}\u{323} 8.txt", "q\u{323}\u{307} 8.txt"),
        ("\u{f900} 9.txt", "\u{8c48} 9.txt"),
        ("a\u{340} 10.txt", "\u{e0} 10.txt"),
        ("a\u{37e}b 11.txt", "a;b 11.txt"),
        ("a\u{1fef}b 12.txt", "a`b 12.txt"),
        ("a\u{387}b 13.txt", "a\u{b7}b 13.txt"),
        ("a\u{2000}b 14.txt", "a\u{2002}b 14.txt"),
        ("pa\u{303}es/ma\u{303}e 15.txt", "p\u{e3}es/m\u{e3}e 15.txt"),
        ("\u{2f800} 16.txt", "\u{4e3d} 16.txt"),
    ]
    .into_iter()
    .map(|(name, normal)| HostileName {
        category: "decomposed",
        name: name.to_owned(),
        verdict: Verdict::Normalised(normal.to_owned()),
    })
    .collect()
}

fn accepted() -> Vec<HostileName> {
    let categories: Vec<(&'static str, Vec<String>)> = vec![
        ("options", texts(&["-rf", "--help", "-", "--", "-o", "--data=x", "-o=saida", "--json"])),
        (
            "shell",
            texts(&[
                "$(touch dono)",
                "`id`",
                "a;rm -rf ~",
                "a && b",
                "a'b",
                "${HOME}",
                "!!",
                "a#b",
                "~",
                "~root",
                "a & b",
                "(a)",
                "[a]",
                "{a,b}",
                "a\u{201d}b",
                "$PATH",
                "a=b",
                "^a",
            ]),
        ),
        (
            "templates",
            texts(&[
                "{{7+7}}",
                "${7+7}",
                "#{7+7}",
                "{% a %}",
                "&lt;script&gt;",
                "' onmouseover='alert(1)",
                "a&b",
                "%{7}",
            ]),
        ),
        (
            "formulas",
            texts(&["=1+1.csv", "+1.csv", "-1.csv", "@SUM(A1).csv", "=cmd.csv", "a,b,c.csv", "a;b.csv"]),
        ),
        ("formats", texts(&["%s%s%n", "%d", "{}", "{0}", "%x%x", "%1$s", "%@"])),
        (
            "percent",
            texts(&[
                "%2e%2e%2fetc",
                "%252e%252e",
                "a%00b",
                "%0d%0aSet-Cookie%3a a",
                "%c0%af",
                "%",
                "%zz",
                "+",
                "a+b",
            ]),
        ),
        (
            "queries",
            texts(&[
                "'; DROP TABLE files; --",
                "' OR 1=1 --",
                "%_%",
                "_",
                "NEAR(a b, 2)",
                "a AND b",
                "a OR b",
                "NOT a",
                "a^b",
                "a-b",
                "\u{2a}".replace('*', "\u{2217}").as_str(),
            ]),
        ),
        (
            "files with a meaning",
            texts(&[
                ".git/config",
                ".gitconfig",
                ".bashrc",
                ".ssh/authorized_keys",
                "desktop.ini",
                "Thumbs.db",
                ".DS_Store",
                "autorun.inf",
                ".htaccess",
                "quarta.toml",
                "settings.toml",
                "identity.key",
                "api.sock",
                "api-token",
                "node.db",
                "library/a",
                "partial/a",
                "lost+found/a",
                "GIT~1",
                "PROGRA~1",
                ".env",
                "index.html",
                "..a",
                "..b/c",
                "...a",
                "a..b",
                ".a.",
            ])
            .into_iter()
            .filter(|name| name != ".a.")
            .collect(),
        ),
        (
            "nearly devices",
            texts(&[
                "conn.txt",
                "com.txt",
                "com10.txt",
                "com1x",
                "lpt.txt",
                "nulo.txt",
                "auxiliar",
                "a.con",
                "prn1",
            ]),
        ),
        (
            "scripts",
            texts(&[
                "\u{65e5}\u{672c}\u{8a9e}.txt",
                "\u{645}\u{631}\u{62d}\u{628}\u{627}.txt",
                "\u{5e9}\u{5b8}\u{5c1}.txt",
                "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}.txt",
                "\u{e17}\u{e35}\u{e48}.txt",
                "Vi\u{1ec7}t.txt",
                "\u{440}\u{430}ypal.txt",
                "p\u{430}ypal.txt",
                "\u{ff41}.txt",
                "\u{ff0f}a",
                "\u{2215}a",
                "\u{2044}a",
                "a\u{2024}\u{2024}b",
                "\u{fe52}",
                "\u{29f8}etc",
                "a\u{a0}b",
                "a\u{202f}b",
            ]),
        ),
        (
            "pictures",
            texts(&[
                "\u{1f44d}\u{1f3fd}.png",
                "\u{1f1e7}\u{1f1f7}.png",
                "\u{2764}\u{fe0f}.png",
                "\u{1f4a9}",
                "\u{378}.txt",
            ]),
        ),
        (
            "longest",
            vec![
                "n".repeat(200),
                "\u{e9}".repeat(100),
                ["m"; 5].map(|part| part.repeat(200)).join("/"),
                "d/".repeat(31) + "d",
            ],
        ),
        (
            "numbers",
            texts(&[
                "NaN",
                "Infinity",
                "1e308",
                "0x10",
                "-0",
                "true",
                "null.json",
                "undefined",
                "\u{661}\u{662}.txt",
            ]),
        ),
    ];
    categories.into_iter().flat_map(|(category, names)| of(category, &Verdict::Accepted, names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quarta_protocols::names::{FileName, fold};

    #[test]
    fn there_are_at_least_five_hundred_and_the_type_judges_each_as_it_must() {
        let names = all();
        println!("{} hostile names", names.len());
        assert!(names.len() >= 500, "{}", names.len());
        let mut wrong = Vec::new();
        for HostileName { category, name, verdict } in &names {
            let received = FileName::new(name).map(|name| name.to_string()).ok();
            let given = FileName::normalised(name).map(|name| name.to_string()).ok();
            let expected = match verdict {
                Verdict::Accepted => (Some(name.clone()), Some(name.clone())),
                Verdict::Normalised(normal) => (None, Some(normal.clone())),
                Verdict::Refused => (None, None),
            };
            if (received, given) != expected {
                wrong.push((category, name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn what_is_accepted_fits_into_one_library() {
        let names: Vec<String> = all()
            .into_iter()
            .filter_map(|name| match name.verdict {
                Verdict::Accepted => Some(fold(&name.name)),
                Verdict::Normalised(normal) => Some(fold(&normal)),
                Verdict::Refused => None,
            })
            .collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "no two are twins");
        for name in &names {
            for (slash, _) in name.match_indices('/') {
                assert!(
                    !distinct.contains(&name[..slash].to_owned()),
                    "{name:?} needs a folder that is a file"
                );
            }
        }
    }

    #[test]
    fn twins_are_names_of_their_own_that_fold_to_one() {
        for group in twins() {
            let names: Vec<_> = group.iter().map(|name| FileName::new(name).unwrap()).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), group.len());
            let first = |name: &FileName| fold(name.components().next().unwrap());
            assert!(names.iter().all(|name| first(name) == first(&names[0])), "{group:?}");
        }
    }

    #[test]
    fn what_is_not_unicode_is_not_by_mistake() {
        assert!(not_unicode().iter().all(|name| std::str::from_utf8(name).is_err()));
    }
}
