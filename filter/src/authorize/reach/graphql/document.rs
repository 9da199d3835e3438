//! GraphQL documents: what they select, read within bounds.
//!
//! Only what can be executed is read (GraphQL specification, September 2025, section 2), and of it
//! only what decides the rights: operations, fragments, fields with their arguments, and defaults of
//! variables. Directives are checked for their form and left out. Nothing here recurses by what a client
//! sends, but for values and types, to a small depth.

use std::borrow::Cow;

use super::lexer::{Lexer, Located, Token, unescaped};
use crate::authorize::reach::value::Value;

/// What a document selects, in its order: each item is followed by what it contains, one deeper.
#[derive(Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Definitions have depth 0, their fields depth 1, and so on.
    pub items: Vec<Item<'a>>,
    /// Arguments of items and of their directives, in the order of the items.
    pub arguments: Vec<Argument<'a>>,
    /// Whether there are variables in them.
    pub uses_variables: bool,
    /// What variables may stand for, defaults and what the request gives: name and value.
    pub variables: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// An argument of a field, or of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// Place of the field, or of what has the directive, among the items.
    pub item: usize,
    /// Its name.
    pub name: &'a str,
    /// What is given.
    pub value: Value<'a>,
}

/// A definition, or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// How many selection sets it stands in.
    pub depth: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in bytes.
    pub column: u32,
    /// What it is.
    pub what: What<'a>,
}

/// What an item of a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// A field, by its own name: an alias renames what is returned, not what is read.
    Field(&'a str),
    /// A fragment with its name, on a type.
    Fragment {
        /// Its name.
        name: &'a str,
        /// The type.
        on: &'a str,
    },
    /// An inline fragment, perhaps on a type.
    Inline(Option<&'a str>),
    /// An operation.
    Operation(Operation),
    /// A spread of the fragment with this name.
    Spread(&'a str),
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Changes something.
    Mutation,
    /// Reads.
    Query,
    /// Reads again and again.
    Subscription,
}

/// Why a document cannot be judged, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query cannot be read at line {line}, column {column}: {problem}")]
pub struct DocumentError {
    problem: Problem,
    line: u32,
    column: u32,
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A character that has no place there.
    #[error("expected no such character")]
    Character,
    /// A fragment that contains itself.
    #[error("the fragment contains itself")]
    Cycle,
    /// Something else than what can stand there.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A number that is none.
    #[error("expected a number")]
    Number,
    /// Two fragments of the same name.
    #[error("there is another fragment of this name")]
    SameName,
    /// A string that is none, or has no end.
    #[error("expected a string")]
    String,
    /// Deeper than is judged.
    #[error("expected at most {MAX_DEPTH} levels")]
    TooDeep,
    /// More fields than are judged, each counted as often as it is spread.
    #[error("expected at most {MAX_FIELDS} fields")]
    TooManyFields,
    /// More tokens than are judged.
    #[error("expected at most {MAX_TOKENS} tokens")]
    TooManyTokens,
    /// A spread of a fragment that is not there.
    #[error("expected the name of a fragment")]
    UnknownFragment,
}

impl DocumentError {
    pub(super) const fn new(problem: Problem, line: u32, column: u32) -> Self {
        Self { problem, line, column }
    }

    /// Returns what is wrong.
    #[must_use]
    pub const fn problem(&self) -> Problem {
        self.problem
    }
}

impl<'a> Document<'a> {
    /// Reads a document that may have so many tokens, and takes those that it has from them.
    ///
    /// # Errors
    ///
    /// A [`DocumentError`] if it is no executable document, or larger than is judged.
    pub fn parse(text: &'a str, tokens_left: &mut usize) -> Result<Self, DocumentError> {
        let mut lexer = Lexer::new(text, tokens_left);
        let next = lexer.next()?;
        let (items, arguments, variables) = (Vec::new(), Vec::new(), Vec::new());
        let mut parser = Parser {
            lexer,
            next,
            read: Self { items, arguments, uses_variables: false, variables },
        };
        parser.document()?;
        let document = parser.read;
        super::expansion::check(&document)?;
        Ok(document)
    }
}

struct Parser<'a, 'b> {
    lexer: Lexer<'a, 'b>,
    /// The token that comes next.
    next: Located<'a>,
    read: Document<'a>,
}

impl<'a> Parser<'a, '_> {
    fn document(&mut self) -> Result<(), DocumentError> {
        loop {
            let Located { token, line, column } = self.take()?;
            let operation =
                |operation| Item { depth: 0, line, column, what: What::Operation(operation) };
            match token {
                Token::Punctuator(b'{') => {
                    self.read.items.push(operation(Operation::Query));
                    self.selections()?;
                }
                Token::Name("query") => self.operation(operation(Operation::Query))?,
                Token::Name("mutation") => self.operation(operation(Operation::Mutation))?,
                Token::Name("subscription") => {
                    self.operation(operation(Operation::Subscription))?;
                }
                Token::Name("fragment") => self.fragment(line, column)?,
                Token::End if !self.read.items.is_empty() => return Ok(()),
                Token::End
                | Token::Name(_)
                | Token::Number
                | Token::Punctuator(_)
                | Token::Spread
                | Token::Text(_) => {
                    let expected = Problem::Expected("an operation or a fragment");
                    return Err(DocumentError::new(expected, line, column));
                }
            }
        }
    }

    fn operation(&mut self, item: Item<'a>) -> Result<(), DocumentError> {
        self.read.items.push(item);
        if let Token::Name(_) = self.next.token {
            self.take()?;
        }
        if self.skip_if(b'(')? {
            self.variables()?;
        }
        self.directives(Variables::May)?;
        self.expect(b'{', "`{`")?;
        self.selections()
    }

    fn fragment(&mut self, line: u32, column: u32) -> Result<(), DocumentError> {
        let name = self.name_but_on("the name of a fragment")?;
        if self.name("`on`")? != "on" {
            return Err(DocumentError::new(Problem::Expected("`on`"), line, column));
        }
        let on = self.name("a type")?;
        self.read.items.push(Item { depth: 0, line, column, what: What::Fragment { name, on } });
        self.directives(Variables::May)?;
        self.expect(b'{', "`{`")?;
        self.selections()
    }

    /// Reads selection sets, the first of which was opened, until it is closed.
    fn selections(&mut self) -> Result<(), DocumentError> {
        let mut depth = 1;
        let mut is_empty = true;
        loop {
            let Located { token, line, column } = self.take()?;
            let item = |what| Item { depth, line, column, what };
            let may_open = match token {
                Token::Punctuator(b'}') if !is_empty => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                    continue;
                }
                Token::Name(name) => {
                    let name = if self.skip_if(b':')? { self.name("a field")? } else { name };
                    if self.skip_if(b'(')? {
                        self.field_arguments()?;
                    }
                    self.read.items.push(item(What::Field(name)));
                    Opens::Perhaps
                }
                Token::Spread => match self.next.token {
                    Token::Name("on") => {
                        self.take()?;
                        let on = self.name("a type")?;
                        self.read.items.push(item(What::Inline(Some(on))));
                        Opens::Always
                    }
                    Token::Name(name) => {
                        self.take()?;
                        self.read.items.push(item(What::Spread(name)));
                        Opens::Never
                    }
                    Token::End
                    | Token::Number
                    | Token::Punctuator(_)
                    | Token::Spread
                    | Token::Text(_) => {
                        self.read.items.push(item(What::Inline(None)));
                        Opens::Always
                    }
                },
                Token::End | Token::Number | Token::Punctuator(_) | Token::Text(_) => {
                    let expected = Problem::Expected("a field or `...`");
                    return Err(DocumentError::new(expected, line, column));
                }
            };
            self.item_directives()?;
            let is_open = match may_open {
                Opens::Always => {
                    self.expect(b'{', "`{`")?;
                    true
                }
                Opens::Perhaps => self.skip_if(b'{')?,
                Opens::Never => false,
            };
            is_empty = is_open;
            if is_open {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DocumentError::new(Problem::TooDeep, line, column));
                }
            }
        }
    }

    fn variables(&mut self) -> Result<(), DocumentError> {
        loop {
            self.expect(b'$', "a variable")?;
            let name = self.name("the name of a variable")?;
            self.expect(b':', "`:`")?;
            self.type_reference()?;
            if self.skip_if(b'=')? {
                let value = self.value(Variables::Never, 0)?;
                self.read.variables.push((Cow::Borrowed(name), value));
            }
            self.directives(Variables::Never)?;
            if self.skip_if(b')')? {
                return Ok(());
            }
        }
    }

    fn type_reference(&mut self) -> Result<(), DocumentError> {
        let mut open = 0;
        while self.skip_if(b'[')? {
            open += 1;
        }
        self.name("a type")?;
        self.skip_if(b'!')?;
        for _ in 0..open {
            self.expect(b']', "`]`")?;
            self.skip_if(b'!')?;
        }
        Ok(())
    }

    fn directives(&mut self, variables: Variables) -> Result<(), DocumentError> {
        while self.skip_if(b'@')? {
            self.name("a directive")?;
            if self.skip_if(b'(')? {
                self.arguments(variables)?;
            }
        }
        Ok(())
    }

    /// Reads the directives of the last item; their arguments are as good as its own.
    fn item_directives(&mut self) -> Result<(), DocumentError> {
        let item = self.read.items.len().saturating_sub(1);
        while self.skip_if(b'@')? {
            self.name("a directive")?;
            if self.skip_if(b'(')? {
                self.arguments_of(item)?;
            }
        }
        Ok(())
    }

    /// Reads the arguments of a field, which becomes the next item.
    fn field_arguments(&mut self) -> Result<(), DocumentError> {
        self.arguments_of(self.read.items.len())
    }

    fn arguments_of(&mut self, item: usize) -> Result<(), DocumentError> {
        loop {
            let (name, value) = self.argument(Variables::May)?;
            self.read.arguments.push(Argument { item, name, value });
            if self.skip_if(b')')? {
                return Ok(());
            }
        }
    }

    fn arguments(&mut self, variables: Variables) -> Result<(), DocumentError> {
        loop {
            self.argument(variables)?;
            if self.skip_if(b')')? {
                return Ok(());
            }
        }
    }

    fn argument(&mut self, variables: Variables) -> Result<(&'a str, Value<'a>), DocumentError> {
        let name = self.name("an argument")?;
        self.expect(b':', "`:`")?;
        Ok((name, self.value(variables, 0)?))
    }

    fn value(&mut self, variables: Variables, depth: usize) -> Result<Value<'a>, DocumentError> {
        let Located { token, line, column } = self.take()?;
        if depth > MAX_VALUE_DEPTH {
            return Err(DocumentError::new(Problem::TooDeep, line, column));
        }
        match token {
            Token::Number | Token::Name("true" | "false" | "null") => Ok(Value::Scalar),
            Token::Text(text) => Ok(Value::Text(unescaped(text))),
            Token::Name(name) => Ok(Value::Name(name)),
            Token::Punctuator(b'$') if variables == Variables::May => {
                self.read.uses_variables = true;
                self.name("the name of a variable").map(Value::Variable)
            }
            Token::Punctuator(b'[') => {
                let mut values = Vec::new();
                while !self.skip_if(b']')? {
                    values.push(self.value(variables, depth + 1)?);
                }
                Ok(Value::List(values))
            }
            Token::Punctuator(b'{') => {
                let mut members = Vec::new();
                while !self.skip_if(b'}')? {
                    let name = self.name("a member")?;
                    self.expect(b':', "`:`")?;
                    members.push((Cow::Borrowed(name), self.value(variables, depth + 1)?));
                }
                Ok(Value::Object(members))
            }
            Token::End | Token::Punctuator(_) | Token::Spread => {
                Err(DocumentError::new(Problem::Expected("a value"), line, column))
            }
        }
    }

    /// Takes the next token.
    fn take(&mut self) -> Result<Located<'a>, DocumentError> {
        Ok(std::mem::replace(&mut self.next, self.lexer.next()?))
    }

    fn skip_if(&mut self, punctuator: u8) -> Result<bool, DocumentError> {
        let is_there = self.next.token == Token::Punctuator(punctuator);
        if is_there {
            self.next = self.lexer.next()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, punctuator: u8, named: &'static str) -> Result<(), DocumentError> {
        let Located { token, line, column } = self.take()?;
        if token == Token::Punctuator(punctuator) {
            return Ok(());
        }
        Err(DocumentError::new(Problem::Expected(named), line, column))
    }

    fn name(&mut self, expected: &'static str) -> Result<&'a str, DocumentError> {
        match self.take()? {
            Located { token: Token::Name(name), .. } => Ok(name),
            Located { line, column, .. } => {
                Err(DocumentError::new(Problem::Expected(expected), line, column))
            }
        }
    }

    fn name_but_on(&mut self, expected: &'static str) -> Result<&'a str, DocumentError> {
        match self.take()? {
            Located { token: Token::Name(name), .. } if name != "on" => Ok(name),
            Located { line, column, .. } => {
                Err(DocumentError::new(Problem::Expected(expected), line, column))
            }
        }
    }
}

/// Whether variables may stand in a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variables {
    May,
    Never,
}

/// Whether a selection set follows.
enum Opens {
    Always,
    Never,
    Perhaps,
}

/// Most levels of selection sets, those of spread fragments included: several times what the schema
/// query of GraphQL's own tools has (13).
pub const MAX_DEPTH: usize = 64;

/// Most levels of lists and objects in a value.
const MAX_VALUE_DEPTH: usize = 32;

/// Most tokens of all queries of a request: four times those of a query of 60 kB. 20,000 are read in
/// about a millisecond.
pub const MAX_TOKENS: usize = 20_000;

/// Most fields of a document, each counted as often as the fragments around it are spread.
pub const MAX_FIELDS: usize = 20_000;
