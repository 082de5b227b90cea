//! Calls read from an answer as its text comes: what is none is told as text, and nothing
//! is told twice or lost.

use super::object::Object;
use super::{BEGIN, END, Form, PYTHON};
use std::sync::Arc;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Text beside calls.
    Text(String),
    /// A call has begun; calls count from 0.
    Call {
        /// Which.
        index: usize,
        /// Of what.
        name: String,
    },
    /// Its arguments go on.
    Arguments {
        /// Which.
        index: usize,
        /// By this.
        text: String,
    },
}

/// The calls of one answer.
#[derive(Debug)]
pub struct Calls {
    form: Form,
    /// What may be called.
    names: Arc<[String]>,
    /// Text that may yet belong to a call: it begins one, or is blank before one.
    held: String,
    /// The call that is being read.
    call: Option<Call>,
    /// Calls that have begun.
    count: usize,
    /// One of them is not whole.
    cut: bool,
    /// What came and is not told yet.
    came: Vec<Came>,
}

#[derive(Debug, Default)]
struct Call {
    object: Object,
    /// All its text, as long as nothing of it is told.
    text: String,
    /// Its number, once its name is told.
    index: Option<usize>,
    /// Bytes of its arguments that are told.
    told: usize,
    /// Text after its object, which belongs to it.
    after: String,
}

impl Calls {
    /// None yet.
    pub fn new(form: Form, names: Arc<[String]>) -> Self {
        Self {
            form,
            names,
            held: String::new(),
            call: None,
            count: 0,
            cut: false,
            came: Vec::new(),
        }
    }

    /// Whether there was a call.
    fn any(&self) -> bool {
        self.count > 0
    }

    /// Whether there were calls, and all of them are whole.
    pub fn whole(&self) -> bool {
        self.any() && !self.cut
    }

    /// What comes of more text.
    pub fn push(&mut self, text: &str) -> Vec<Came> {
        for c in text.chars() {
            match &mut self.call {
                Some(_) => self.push_call(c),
                None => self.push_text(c),
            }
        }
        self.tell_arguments();
        std::mem::take(&mut self.came)
    }

    /// What is left when the answer has ended.
    pub fn finish(&mut self) -> Vec<Came> {
        self.tell_arguments();
        if let Some(call) = self.call.take() {
            match call.index {
                None => self.say(&call.text),
                Some(_) => self.cut |= !call.object.ended,
            }
        }
        let held = std::mem::take(&mut self.held);
        // Blanks after a call say nothing.
        if !(self.any() && held.trim().is_empty()) {
            self.say(&held);
        }
        std::mem::take(&mut self.came)
    }

    /// A character outside of calls.
    fn push_text(&mut self, c: char) {
        self.held.push(c);
        loop {
            let blank = self.held.len() - self.held.trim_start().len();
            match self.begins(&self.held[blank..]) {
                Begins::Call(text) => {
                    let mut call = Call { text: std::mem::take(&mut self.held), ..Call::default() };
                    for c in text.chars() {
                        call.object.push(c);
                    }
                    self.call = Some(call);
                    return;
                }
                Begins::Maybe => return,
                Begins::No => {
                    // One character is text for sure; what follows it may begin a call.
                    let first = self.held[blank..].chars().next().map_or(0, char::len_utf8);
                    let rest = self.held.split_off(blank + first);
                    let said = std::mem::replace(&mut self.held, rest);
                    self.say(&said);
                    if self.held.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether text, which does not begin with blanks, begins a call; and what of it is its
    /// object's.
    fn begins(&self, text: &str) -> Begins {
        let mark = match self.form {
            Form::Hermes => BEGIN,
            Form::Llama3 if text.starts_with('<') => PYTHON,
            Form::Llama3 => {
                let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                let plain = plain.strip_prefix(';').filter(|_| self.any()).unwrap_or(&plain);
                let key = "{\"name\"";
                return match () {
                    () if plain == key => Begins::Call(key.to_owned()),
                    () if key.starts_with(plain) => Begins::Maybe,
                    () => Begins::No,
                };
            }
        };
        match () {
            () if text == mark => Begins::Call(String::new()),
            () if mark.starts_with(text) => Begins::Maybe,
            () => Begins::No,
        }
    }

    /// A character of a call.
    fn push_call(&mut self, c: char) {
        let call = self.call.as_mut().expect("there is one");
        if call.object.ended {
            // Only Hermes' form has something after the object.
            call.after.push(c);
            let after = call.after.trim_start();
            if after == END {
                self.call = None;
            } else if !END.starts_with(after) {
                let after = std::mem::take(&mut call.after);
                self.call = None;
                after.chars().for_each(|c| self.push_text(c));
            }
            return;
        }
        call.text.push(c);
        if !call.object.push(c) {
            return self.give_up();
        }
        if call.object.name.as_ref().is_some_and(|name| !self.names.contains(name)) {
            return self.give_up();
        }
        if call.index.is_none()
            && let Some(name) = &call.object.name
            && (!call.object.arguments.is_empty() || call.object.ended)
        {
            call.index = Some(self.count);
            self.came.push(Came::Call { index: self.count, name: name.clone() });
            self.count += 1;
        }
        if call.object.ended {
            self.end_object();
        }
    }

    /// What seemed a call is none: it is text; or, where it is told already, it ends.
    fn give_up(&mut self) {
        self.tell_arguments();
        let call = self.call.take().expect("there is one");
        match call.index {
            None => self.say(&call.text),
            Some(_) => self.cut = true,
        }
    }

    fn end_object(&mut self) {
        if self.call.as_ref().is_some_and(|call| call.index.is_none()) {
            return self.give_up();
        }
        self.tell_arguments();
        let call = self.call.as_mut().expect("there is one");
        if call.object.arguments.is_empty() {
            let index = call.index.expect("it is told");
            self.came.push(Came::Arguments { index, text: "{}".into() });
        }
        if self.form == Form::Llama3 {
            self.call = None;
        }
    }

    /// Tells what has come of arguments.
    fn tell_arguments(&mut self) {
        let Some(Call { object, index: Some(index), told, .. }) = &mut self.call else { return };
        let arguments = &object.arguments;
        // Some models write them as a string that holds them.
        if arguments.starts_with('"') {
            if object.argued && *told == 0 {
                *told = arguments.len();
                let text = serde_json::from_str(arguments).unwrap_or_else(|_| arguments.clone());
                self.came.push(Came::Arguments { index: *index, text });
            }
            return;
        }
        // Blanks at the end may be those after them.
        let sure = arguments.trim_end().len();
        if sure > *told {
            let text = arguments[*told..sure].to_owned();
            *told = sure;
            self.came.push(Came::Arguments { index: *index, text });
        }
    }

    fn say(&mut self, text: &str) {
        match self.came.last_mut() {
            _ if text.is_empty() => {}
            Some(Came::Text(before)) => before.push_str(text),
            _ => self.came.push(Came::Text(text.to_owned())),
        }
    }
}

enum Begins {
    No,
    Maybe,
    Call(String),
}

#[cfg(test)]
mod tests {
    use super::{Calls, Came};
    use crate::text::calls::Form;

    /// Text beside calls, and each call's name and arguments, however the text is cut.
    fn read(form: Form, text: &str) -> (String, Vec<(String, String)>) {
        let all = |cut: usize| {
            let names = ["add", "f"].map(str::to_owned).into();
            let mut calls = Calls::new(form, names);
            let (mut said, mut made) = (String::new(), Vec::new());
            let chars: Vec<char> = text.chars().collect();
            let mut came: Vec<Came> = Vec::new();
            for part in chars.chunks(cut) {
                came.extend(calls.push(&part.iter().collect::<String>()));
            }
            came.extend(calls.finish());
            for came in came {
                match came {
                    Came::Text(text) => said.push_str(&text),
                    Came::Call { index, name } => {
                        assert_eq!(index, made.len());
                        made.push((name, String::new()));
                    }
                    Came::Arguments { index, text } => made[index].1.push_str(&text),
                }
            }
            assert_eq!(calls.any(), !made.is_empty());
            (said, made)
        };
        let whole = all(usize::MAX);
        for cut in 1..9 {
            assert_eq!(all(cut), whole, "{text} in parts of {cut}");
        }
        whole
    }

    fn one(name: &str, arguments: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), arguments.to_owned())]
    }

    #[test]
    fn calls_of_hermes_are_read() {
        let read = |text: &str| read(Form::Hermes, text);
        let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": \"}\\\"]\"}}\n</tool_call>";
        assert_eq!(read(call), (String::new(), one("add", "{\"a\": 1, \"b\": \"}\\\"]\"}")));
        let (said, made) = read(&format!("Let me see.\n{call}\n{call}\n"));
        assert_eq!((said.as_str(), made.len()), ("Let me see.", 2));
        let (said, made) = read(&format!("{call} and then"));
        assert_eq!((said.as_str(), made.len()), (" and then", 1));
        // Arguments first, none, or as a string.
        assert_eq!(
            read("<tool_call>{\"arguments\": [1, {}] , \"name\":\"f\"}</tool_call>").1,
            one("f", "[1, {}]")
        );
        assert_eq!(read("<tool_call>{\"name\": \"f\"}</tool_call>").1, one("f", "{}"));
        assert_eq!(
            read("<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>").1,
            one("f", "{\"a\": 1}")
        );
        assert_eq!(
            read(
                "<tool_call>{\"id\": {\"name\": 1}, \"name\": \"f\", \"arguments\": 1 }</tool_call>"
            )
            .1,
            one("f", "1")
        );
    }

    #[test]
    fn calls_of_llama_are_read() {
        let read = |text: &str| read(Form::Llama3, text);
        let call = "{\"name\": \"add\", \"parameters\": {\"a\": [1, 2]}}";
        assert_eq!(read(call), (String::new(), one("add", "{\"a\": [1, 2]}")));
        assert_eq!(read(&format!("<|python_tag|>{call}; {call}")).1.len(), 2);
        assert_eq!(read(&format!("Well: {call}")), ("Well:".into(), one("add", "{\"a\": [1, 2]}")));
        assert_eq!(read("{ \"name\" : \"f\", \"parameters\" : {} }").1, one("f", "{}"));
        let other = "{\"names\": 1} <b> {\"a\": {\"name\": 2}} ; {";
        assert_eq!(read(other), (other.into(), Vec::new()));
    }

    #[test]
    fn what_is_no_call_is_text_as_it_stands() {
        for text in [
            "plain <tool and <tool_cal l> text\n",
            "  <tool_call>\nnothing",
            "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
            "<tool_call>{\"nam",
            "a < b",
            "é<",
            "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
        ] {
            let (said, made) = read(Form::Hermes, text);
            assert_eq!((said.as_str(), made.len()), (text, 0));
        }
    }

    #[test]
    fn a_call_that_is_cut_has_what_came_of_it() {
        let text = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": \"x";
        assert_eq!(read(Form::Hermes, text), (String::new(), one("add", "{\"a\": \"x")));
    }
}
