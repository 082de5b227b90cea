//! Parameter blocks: fixed-width scalars, 8-byte fields first, no padding, sixteen
//! fields at most, each with a comment; constants are unsigned macros. The text is
//! checked, so a rule holds for every language at once.

use super::source::{Tree, lines_with_word};
use std::collections::BTreeMap;

const HEADER: &str = "include/pagewise/kernel_params.h";
const FIELDS_MAX: usize = 16;

/// Size, alignment and last field of a block.
#[derive(Clone, Debug)]
struct Layout {
    bytes: usize,
    align: usize,
    last: (String, usize),
}

/// What breaks the rules of the header.
pub fn broken(tree: &Tree) -> Vec<String> {
    let Some(text) = tree.text(HEADER) else {
        return vec![format!("{HEADER} is missing")];
    };
    let mut faults = without_words(text);
    let text = without_comments(text);
    let mut blocks: BTreeMap<String, Layout> = BTreeMap::new();
    for part in text.split("\nstruct ").skip(1) {
        let (name, rest) = part.split_once('{').unwrap_or((part, ""));
        let (name, body) = (name.trim(), rest.split('}').next().unwrap_or_default());
        let layout = layout(name, body, &blocks, &mut faults);
        let asserted =
            format!("PWK_LAYOUT({name},{},{},{});", layout.bytes, layout.last.0, layout.last.1);
        let spaceless: String = rest.chars().filter(|c| !c.is_whitespace()).collect();
        if !spaceless.contains(&asserted) {
            faults.push(format!("{name}: {asserted} does not follow it"));
        }
        blocks.insert(name.to_owned(), layout);
    }
    if !lines_with_word(&text, "enum").is_empty() {
        faults.push("an enum: its size differs between languages".to_owned());
    }
    faults.extend(constants(&text));
    faults
}

/// Constants that are no unsigned number; macros with arguments and guards are none.
fn constants(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("#define ") else { continue };
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let value = value.trim();
        let digits = value.strip_suffix('u').unwrap_or_default();
        let is_number = match digits.strip_prefix("0x") {
            Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
            None => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        };
        if !name.contains('(') && !value.is_empty() && !is_number {
            faults.push(format!("{name}: `{value}` is no unsigned number"));
        }
    }
    // A typed constant is another size in C than in C++, and none in a preprocessor.
    let typed =
        lines_with_word(text, "const").into_iter().chain(lines_with_word(text, "constexpr"));
    faults.extend(typed.map(|line| format!("line {line} of the code: a constant is a macro")));
    faults
}

/// Fields that no comment on their line explains.
fn without_words(text: &str) -> Vec<String> {
    let (mut faults, mut block, mut within) = (Vec::new(), None, false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) {
            block = Some(name);
        } else if line.starts_with('}') {
            block = None;
        } else if let (Some(block), Some((field, after))) = (block, line.split_once(';'))
            && !within
            && !field.contains("/*")
            && !after.contains("/*")
        {
            let name = field.split_whitespace().last().unwrap_or_default();
            faults.push(format!("{block}.{name}: no comment says its unit and range"));
        }
        within = match (line.rfind("/*"), line.rfind("*/")) {
            (Some(opened), Some(closed)) => opened > closed,
            (opened, closed) => opened.is_some() || within && closed.is_none(),
        };
    }
    faults
}

fn layout(
    name: &str,
    body: &str,
    blocks: &BTreeMap<String, Layout>,
    faults: &mut Vec<String>,
) -> Layout {
    let fields: Vec<&str> = body.split(';').map(str::trim).filter(|f| !f.is_empty()).collect();
    if fields.len() > FIELDS_MAX {
        faults.push(format!("{name}: {} fields, at most {FIELDS_MAX}", fields.len()));
    }
    let mut block = Layout { bytes: 0, align: 4, last: (String::new(), 0) };
    let mut smaller = false;
    for field in fields {
        let Some((bytes, align, count, field)) = scalar(field, blocks) else {
            faults.push(format!("{name}: `{field}` is no fixed-width scalar or block before it"));
            continue;
        };
        if align == 8 && smaller {
            faults.push(format!("{name}.{field}: 8-byte fields come first"));
        }
        if !block.bytes.is_multiple_of(align) {
            faults.push(format!("{name}.{field}: padding before it"));
        }
        smaller |= align < 8;
        block.align = block.align.max(align);
        block.last = (field, block.bytes);
        block.bytes += bytes * count;
    }
    if !block.bytes.is_multiple_of(block.align) {
        faults.push(format!("{name}: padding after its last field"));
    }
    block
}

/// Bytes, alignment, count and name of a field.
fn scalar(field: &str, blocks: &BTreeMap<String, Layout>) -> Option<(usize, usize, usize, String)> {
    let (kind, name) = field.rsplit_once(char::is_whitespace)?;
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => (name, count.strip_suffix(']')?.trim_end_matches('u').parse().ok()?),
        None => (name, 1),
    };
    let (bytes, align) = match kind.trim() {
        "uint64_t" | "int64_t" => (8, 8),
        "uint32_t" | "int32_t" | "float" => (4, 4),
        kind => {
            let block = blocks.get(kind.strip_prefix("struct ")?.trim())?;
            (block.bytes, block.align)
        }
    };
    let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_name.then(|| (bytes, align, count, name.to_owned()))
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    for (at, part) in text.split("/*").enumerate() {
        let after = if at == 0 { part } else { part.split_once("*/").map_or("", |(_, rest)| rest) };
        code.push_str(after);
    }
    code
}

#[cfg(test)]
mod tests {
    use super::{HEADER, broken};
    use crate::tidy::source::Tree;

    fn faults(block: &str) -> Vec<String> {
        broken(&Tree::of(&[(HEADER, &format!("/* a header */\nstruct pwk_a {block}"))]))
    }

    #[test]
    fn good_blocks_pass_and_may_nest() {
        let good = "{\n uint64_t stride; /* elements */\n uint32_t rows; /* any */\n float scale; /* 1 */\n};\n\
                    PWK_LAYOUT(pwk_a, 16, scale, 12);\n\
                    \nstruct pwk_b {\n struct pwk_a a; /* a */\n uint32_t set[2]; /* b */\n};\n\
                    PWK_LAYOUT(pwk_b, 24, set, 16);\n";
        assert_eq!(faults(good), [""; 0]);
    }

    #[test]
    fn types_that_differ_between_languages_are_found() {
        for kind in ["bool x", "int x", "size_t x", "enum e x", "float *x", "void *x", "uint16_t x"]
        {
            let block = format!("{{ {kind}; uint32_t y; }};\nPWK_LAYOUT(pwk_a, 4, y, 0);");
            // An enum is no scalar, and nothing else either.
            let expected = 1 + usize::from(kind.starts_with("enum"));
            assert_eq!(faults(&block).len(), expected, "{kind}");
        }
    }

    #[test]
    fn enums_constants_and_fields_without_words_are_found() {
        let found = |text: &str| broken(&Tree::of(&[(HEADER, text)])).len();
        assert_eq!(
            found("#define GUARD_H\n#define F(a, b) a b\n#define A 1u\n#define B 0xffu /* b */"),
            0
        );
        for wrong in [
            "typedef enum { X } x;",
            "#define A 1",
            "#define A -1u",
            "#define A 0xu",
            "static const int a = 1;",
        ] {
            assert_eq!(found(wrong), 1, "{wrong}");
        }
        let block = "\nstruct pwk_a {\n uint32_t a; /* rows;\n * of x */\n uint32_t b;\n};\n\
                     PWK_LAYOUT(pwk_a, 8, b, 4);";
        assert_eq!(found(block), 1);
    }

    #[test]
    fn padding_order_size_and_number_are_found() {
        let within = "{ uint32_t a; uint64_t b; };\nPWK_LAYOUT(pwk_a, 12, b, 4);";
        assert_eq!(faults(within).len(), 3);
        let after = "{ uint64_t a; uint32_t b; };\nPWK_LAYOUT(pwk_a, 12, b, 8);";
        assert_eq!(faults(after).len(), 1);
        assert_eq!(faults("{ uint32_t a; };\nPWK_LAYOUT(pwk_a, 8, a, 0);").len(), 1);
        let fields: String = (0..17).map(|i| format!("uint32_t f{i}; ")).collect();
        assert_eq!(faults(&format!("{{ {fields} }};\nPWK_LAYOUT(pwk_a, 68, f16, 64);")).len(), 1);
    }
}
