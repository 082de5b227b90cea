//! A call's object as its characters come: its name, and the text of its arguments as it
//! stands there.

/// An object of a name and arguments, up to where it has come.
#[derive(Debug, Default)]
pub struct Object {
    depth: usize,
    string: bool,
    escaped: bool,
    place: Place,
    /// The key, or the name, that is being read; quotation marks and all.
    word: String,
    /// The function, once it is known.
    pub name: Option<String>,
    /// The text of the arguments so far.
    pub arguments: String,
    /// Whether all of the arguments have come.
    pub argued: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// What the next character belongs to, on the first level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Key,
    /// Between a key and its value.
    Colon(Kind),
    Value(Kind),
}

/// Which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Arguments,
    Other,
}

impl Object {
    /// The next character. Says whether it can stand there: what is no object of a call has
    /// no name when it ends, or cannot go on.
    pub fn push(&mut self, c: char) -> bool {
        if self.depth == 0 {
            self.depth = usize::from(c == '{');
            return c == '{' || c.is_whitespace();
        }
        let first = self.depth == 1 && !self.string;
        match self.place {
            Place::Key if first && c.is_whitespace() => {}
            Place::Key if first && c == '}' => self.ended = true,
            Place::Key if first && c == ',' && self.word.is_empty() => {}
            Place::Key if self.string || c == '"' => {
                self.word.push(c);
                self.track(c);
                if !self.string {
                    self.place = Place::Colon(self.kind());
                    self.word.clear();
                }
            }
            Place::Key => return false,
            Place::Colon(kind) if c == ':' => self.place = Place::Value(kind),
            Place::Colon(_) => return c.is_whitespace(),
            Place::Value(kind) if first && (c == ',' || c == '}') => {
                self.end_value(kind);
                self.ended = c == '}';
                self.place = Place::Key;
            }
            Place::Value(kind) => {
                let before = match kind {
                    Kind::Arguments => &mut self.arguments,
                    Kind::Name | Kind::Other => &mut self.word,
                };
                if !(first && before.is_empty() && c.is_whitespace()) {
                    before.push(c);
                }
                self.track(c);
                let closes = self.depth == 1 && !self.string && matches!(c, '}' | ']' | '"');
                self.argued |= closes && kind == Kind::Arguments;
            }
        }
        true
    }

    fn kind(&self) -> Kind {
        match self.word.as_str() {
            "\"name\"" => Kind::Name,
            "\"arguments\"" | "\"parameters\"" if !self.argued => Kind::Arguments,
            _ => Kind::Other,
        }
    }

    /// Levels and strings.
    fn track(&mut self, c: char) {
        if self.string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.string = false,
                _ => {}
            }
            return;
        }
        match c {
            '"' => self.string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth -= 1,
            _ => {}
        }
    }

    fn end_value(&mut self, kind: Kind) {
        match kind {
            Kind::Name => self.name = serde_json::from_str(self.word.trim()).ok(),
            Kind::Arguments => self.argued = true,
            Kind::Other => {}
        }
        self.word.clear();
    }
}
