//! GraphQL documents against published parsers, and their rights against a second implementation.

use std::collections::{BTreeMap, BTreeSet};

use graphql_parser::query;
use latchkey_protocol::Relation;
use proptest::prelude::*;
use proptest::sample::select;

use crate::authorize::reach::Requirement;
use crate::authorize::reach::graphql::{document, needed_by};
use crate::profile::graphql::Graphql;
use crate::profile::{Permission, Profile, SHIPPED};
use crate::resources::Resources;
use document::{Document, MAX_DEPTH, MAX_FIELDS, MAX_TOKENS, Problem};

#[path = "../../../fuzz/oracle.rs"]
mod oracle;

fn problem(text: &str) -> Option<Problem> {
    let mut tokens = MAX_TOKENS;
    Document::parse(text, &mut tokens).err().map(|error| error.problem())
}

#[test]
fn documents_are_read_as_published_parsers_read_them() {
    for text in [
        "{a}",
        "{a b,c}",
        "query{a}",
        "query Q{a}",
        "query query{query{fragment{on}}}",
        "{a:b(c:1){d}...F}fragment F on T@x{e}",
        "query($a:[T!]!=[1,2.5e-3,true,null,E,\"s\",{b:1}]@d(e:2)){a}",
        "{...on T{a}...@include(if:$x){b}...{c}}",
        "subscription{a}mutation{b}",
        "{a(b:\"\\u0041\\\"\\\\\",c:\"\"\"block \" \\\"\"\" \n\"\"\",d:\"\")}",
        "\u{feff}#c }\r\n{a#}\r}",
        "{a(x:-0,y:0.1,z:1E5)}",
        "{a(b:[],c:{})}",
        "{a @b @c(d:1)}",
        "{type:on}",
        "{q,:n @qy u_}",
    ] {
        assert_eq!(problem(text), None, "{text}");
        oracle::check(text);
    }
    for text in [
        "",
        " ",
        "{",
        "}",
        "{}",
        "{a",
        "{a}}",
        "{a{}}",
        "a",
        "query",
        "query Q",
        "{a(}",
        "{a()}",
        "{...}",
        "{...on}",
        "{...on{a}}",
        "{a:}",
        "{:a}",
        "{a b:}",
        "fragment on on T{a}",
        "fragment F{a}",
        "fragment F on T",
        "{a(b:)}",
        "{a(b:[)}",
        "{a(b:{c})}",
        "query($a){b}",
        "query(a:T){b}",
        "query($a:[T){b}",
        "query($a:T!!){b}",
        "query()  {a}",
        "{a(b:01)}",
        "{a(b:1a)}",
        "{a(b:1.)}",
        "{a(b:.5)}",
        "{a(b:1..2)}",
        "{a(b:--1)}",
        "{a(b:\"\n\")}",
        "{a(b:\"x)}",
        "{a(b:\"\\x\")}",
        "{a(b:\"\"\"x)}",
        "{a ä}",
        "{a\0}",
        "{a;b}",
        "{a%}",
        "{..a}",
        "{....a}",
        "type T{a:B}",
        "schema{query:Q}",
        "extend type T{a:B}",
        "{a}type T{a:B}",
        "{a @}",
        "{$a}",
        "{\"a\"}",
        "{1}",
        "query Q R{a}",
        "{a|b}",
        "{a&b}",
        "{a!}",
        "{a=1}",
        "{a}b",
        "query @d($a:T){b}",
        "{a(b:@c)}",
        "query($a:T=$b){c}",
        "query($a:T=[{b:$c}]){d}",
        "query($a:T@b(c:$d)){e}",
        "# \u{2028}{a}",
        "#\u{85}{a}",
        "#\0\n{a}",
    ] {
        assert!(problem(text).is_some(), "{text:?}");
        oracle::check(text);
    }
}

#[test]
fn documents_are_bounded() {
    let nested =
        |levels: usize| format!("{}a{}", "{a".repeat(levels - 1) + "{", "}".repeat(levels));
    assert_eq!(problem(&nested(MAX_DEPTH)), None);
    assert_eq!(problem(&nested(MAX_DEPTH + 1)), Some(Problem::TooDeep));
    assert_eq!(problem(&nested(50_000)), Some(Problem::TooDeep));
    let value = |levels: usize| format!("{{a(b:{}{})}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(problem(&value(30)), None);
    assert_eq!(problem(&value(50_000)), Some(Problem::TooDeep));
    assert_eq!(
        problem(&format!("query($a:{}T{}){{b}}", "[".repeat(9_000), "]".repeat(9_000))),
        None
    );
    let many = |fields: usize| format!("{{{}}}", "a ".repeat(fields));
    assert_eq!(problem(&many(MAX_TOKENS - 2)), None);
    assert_eq!(problem(&many(MAX_TOKENS - 1)), Some(Problem::TooManyTokens));
    // Each fragment spreads the next one twice.
    let doubling = |count: usize| {
        let fragments = (0..count).map(|i| format!("fragment F{i} on T{{...F{0}...F{0}}}", i + 1));
        format!("{{...F0}}{}fragment F{count} on T{{a}}", fragments.collect::<String>())
    };
    assert_eq!(problem(&doubling(10)), None);
    const { assert!(1 << 15 > MAX_FIELDS) };
    assert_eq!(problem(&doubling(15)), Some(Problem::TooManyFields));
    assert_eq!(problem(&doubling(60)), Some(Problem::TooManyFields));
    let chain = |count: usize| {
        let fragments = (0..count).map(|i| format!("fragment F{i} on T{{a{{...F{}}}}}", i + 1));
        format!("{{...F0}}{}fragment F{count} on T{{a}}", fragments.collect::<String>())
    };
    assert_eq!(problem(&chain(50)), None);
    assert_eq!(problem(&chain(64)), Some(Problem::TooDeep));
    assert_eq!(problem(&chain(900)), Some(Problem::TooDeep));
    for cycle in [
        "{...F}fragment F on T{...F}",
        "{...F}fragment F on T{a{...G}}fragment G on T{b ...F}",
        "{a}fragment F on T{...G}fragment G on T{...F}",
    ] {
        assert_eq!(problem(cycle), Some(Problem::Cycle), "{cycle}");
    }
    assert_eq!(problem("{...F}"), Some(Problem::UnknownFragment));
    assert_eq!(problem("{...F}fragment F on T{a}fragment F on U{b}"), Some(Problem::SameName));
}

/// Types that point at each other used to be gathered again and again, twice as many with each level.
#[test]
fn judging_takes_no_longer_with_each_level() {
    let both = Relation::Some(vec!["alpha".to_owned(), "beta".to_owned()]);
    let resource = |name: &str, relations: BTreeMap<String, Relation>| {
        latchkey_protocol::Resource { name: name.to_owned(), relations }
    };
    let relations: BTreeMap<String, Relation> =
        [("one".to_owned(), both.clone()), ("a.one".to_owned(), both)].into();
    let resources =
        Resources::new(&[resource("alpha", relations.clone()), resource("beta", relations)]);
    let profile = Profile::parse(SHIPPED[0].1).unwrap();
    let text = format!("{{ alpha {} {{ title }} {} }}", "{ one ".repeat(60), "}".repeat(60));
    let mut tokens = MAX_TOKENS;
    let documents = [Document::parse(&text, &mut tokens).unwrap()];
    let endpoint = endpoint(&profile, "/api/graphql");
    let needed = needed_by(&documents, endpoint, &resources, Permission::Allow).unwrap();
    assert_eq!(needed.len(), 2);

    // What would take long is given up.
    let many: BTreeMap<String, Relation> = (0..500)
        .map(|field| (format!("s{field}.x"), Relation::Some(vec![format!("t{field}")])))
        .collect();
    let mut all: Vec<latchkey_protocol::Resource> =
        (0..500).map(|number| resource(&format!("t{number}"), many.clone())).collect();
    all.push(resource("alpha", many));
    let resources = Resources::new(&all);
    let text = format!("{{ alpha {{ x {{ {} }} }} }}", "a ".repeat(15_000));
    let mut tokens = MAX_TOKENS;
    let documents = [Document::parse(&text, &mut tokens).unwrap()];
    assert_eq!(needed_by(&documents, endpoint, &resources, Permission::Allow), None);
}

/// Type → field → targets; none stands for any.
type Schema = BTreeMap<String, BTreeMap<String, Option<BTreeSet<String>>>>;

const TYPES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "ghost"];
const FIELDS: [&str; 7] = ["one", "two", "three", "title", "edges", "node", "alpha"];
/// Relations are fields, or stand in objects.
const RELATIONS: [&str; 9] =
    ["one", "two", "three", "edges", "alpha", "two.one", "one.two", "title.one", "three.two.one"];

/// `ghost` is pointed at and never registered.
fn schema() -> impl Strategy<Value = Schema> {
    let targets = prop_oneof![
        1 => Just(None),
        6 => prop::collection::btree_set(select(&TYPES[..]).prop_map(str::to_owned), 1..3).prop_map(Some),
    ];
    let relations =
        prop::collection::btree_map(select(&RELATIONS[..]).prop_map(str::to_owned), targets, 0..4);
    prop::collection::btree_map(select(&TYPES[..4]).prop_map(str::to_owned), relations, 0..5)
}

fn selections(fragments: usize) -> impl Strategy<Value = String> {
    let name = || {
        prop_oneof![
            4 => select(&FIELDS[..]).prop_map(str::to_owned),
            3 => select(&TYPES[..]).prop_map(str::to_owned),
            2 => select(&TYPES[..]).prop_map(|name| format!("{name}List")),
            1 => select(&["__typename", "__schema", "__type"][..]).prop_map(str::to_owned),
        ]
    };
    let dressed = move || {
        (name(), 0_u8..6).prop_map(|(name, dress)| match dress {
            0 => format!("x: {name}"),
            1 => format!("{name}(a: [\"}} {{\", {{b: 1}}], c: $d)"),
            2 => format!("{name} @include(if: $e)"),
            _ => name,
        })
    };
    let mut leaf: BoxedStrategy<String> = dressed().boxed();
    if fragments > 0 {
        let spread = (1..=fragments).prop_map(|fragment| format!("...F{fragment}"));
        leaf = prop_oneof![3 => leaf, 1 => spread].boxed();
    }
    let set = leaf.prop_recursive(5, 24, 4, move |inner| {
        let set = prop::collection::vec(inner, 1..4).prop_map(|items| items.join(" "));
        let on = select(
            &[
                "",
                "on alpha",
                "on Beta",
                "on gamma",
                "on Query",
                "on Ghost",
                "on betaEdge",
                "@skip(if: true)",
            ][..],
        );
        prop_oneof![
            4 => (dressed(), set.clone()).prop_map(|(field, set)| format!("{field} {{ {set} }}")),
            1 => (on, set).prop_map(|(on, set)| format!("... {on} {{ {set} }}")),
        ]
    });
    prop::collection::vec(set, 1..4).prop_map(|items| items.join("\n"))
}

/// Operations and fragments, each of which spreads later ones only.
fn documents() -> impl Strategy<Value = String> {
    let on = || select(&["alpha", "beta", "Gamma", "Query", "ghost", "alphaConnection"][..]);
    let fragment = |number: usize| {
        // Fragments are numbered from the last one, which spreads none.
        (on(), selections(number - 1))
            .prop_map(move |(on, set)| format!("fragment F{number} on {on} {{ {set} }}"))
    };
    let operation = select(&["", "query", "query Q($d: Int)", "mutation"][..]);
    let operations = prop::collection::vec((operation, selections(3)), 1..3).prop_map(|all| {
        all.into_iter().map(|(head, set)| format!("{head} {{ {set} }} ")).collect::<String>()
    });
    (operations, fragment(1), fragment(2), fragment(3))
        .prop_map(|(operations, one, two, three)| format!("{operations}\n{one}\n{two}\n{three}"))
}

fn endpoint<'p>(profile: &'p Profile, path: &str) -> &'p Graphql {
    let route = profile.routes.all().iter().find(|route| route.path == path).unwrap();
    route.graphql.as_ref().unwrap()
}

/// What a selection set belongs to, as the second implementation sees it.
#[derive(Clone)]
enum Around {
    Everything,
    Meta,
    Root,
    /// Types, and the names of the wrapper fields that are still to come.
    Types(BTreeSet<String>, Vec<&'static str>),
}

/// A second implementation of what is needed: it follows the syntax tree of another parser and
/// spreads each fragment where it stands.
struct Naive<'a> {
    schema: &'a Schema,
    fragments: BTreeMap<&'a str, &'a query::FragmentDefinition<'a, &'a str>>,
    is_v2: bool,
    needed: BTreeSet<String>,
}

impl<'a> Naive<'a> {
    fn wrappers(&self) -> Vec<&'static str> {
        if self.is_v2 { vec!["edges", "node"] } else { vec![] }
    }

    fn types(&mut self, types: BTreeSet<String>, wrappers: Vec<&'static str>) -> Around {
        self.needed.extend(types.iter().map(|name| format!("{name}:read")));
        Around::Types(types, wrappers)
    }

    fn everything(&mut self) -> Around {
        self.needed.insert("*:read".to_owned());
        Around::Everything
    }

    fn on(&mut self, name: &str) -> Around {
        if name == "Query" {
            return Around::Root;
        }
        for (suffix, wrappers) in
            [("Connection", vec!["edges", "node"]), ("Edge", vec!["node"]), ("", vec![])]
        {
            let Some(rest) = name.strip_suffix(suffix) else { continue };
            if !suffix.is_empty() && !self.is_v2 {
                continue;
            }
            let lowered = rest[..1].to_lowercase() + &rest[1..];
            if self.schema.contains_key(&lowered) {
                return self.types(BTreeSet::from([lowered]), wrappers);
            }
        }
        self.everything()
    }

    fn walk(&mut self, set: &'a query::SelectionSet<'a, &'a str>, around: &Around) {
        for item in &set.items {
            match item {
                query::Selection::FragmentSpread(spread) => {
                    let fragment = self.fragments[spread.fragment_name];
                    self.fragment(fragment);
                }
                query::Selection::InlineFragment(inline) => {
                    let within = match &inline.type_condition {
                        Some(query::TypeCondition::On(on)) => self.on(on),
                        None => around.clone(),
                    };
                    self.walk(&inline.selection_set, &within);
                }
                query::Selection::Field(field) => {
                    let within = self.field(field, around);
                    self.walk(&field.selection_set, &within);
                }
            }
        }
    }

    fn fragment(&mut self, fragment: &'a query::FragmentDefinition<'a, &'a str>) {
        let query::TypeCondition::On(on) = fragment.type_condition;
        let within = self.on(on);
        self.walk(&fragment.selection_set, &within);
    }

    fn field(&mut self, field: &query::Field<'a, &'a str>, around: &Around) -> Around {
        let name = field.name;
        let has_fields = !field.selection_set.items.is_empty();
        if name == "__typename" {
            return Around::Meta;
        }
        match around {
            Around::Everything => Around::Everything,
            Around::Meta => Around::Meta,
            Around::Root if name == "__schema" || name == "__type" => Around::Meta,
            Around::Root => {
                let listed = name.strip_suffix("List").filter(|_| !self.is_v2);
                let found = [Some(name), listed]
                    .into_iter()
                    .flatten()
                    .find(|n| self.schema.contains_key(*n));
                match found {
                    Some(found) => self.types(BTreeSet::from([found.to_owned()]), self.wrappers()),
                    None => self.everything(),
                }
            }
            Around::Types(types, wrappers) => {
                if wrappers.first() == Some(&name) {
                    return Around::Types(types.clone(), wrappers[1..].to_vec());
                }
                let mut reached = BTreeSet::new();
                let mut same = BTreeSet::new();
                let mut is_relation = false;
                for around in types {
                    let Some(relations) = self.schema.get(around) else {
                        if has_fields {
                            return self.everything();
                        }
                        continue;
                    };
                    let ends_here = |path: &&String| path.split('.').next_back() == Some(name);
                    let passes = |path: &String| {
                        let segments: Vec<&str> = path.split('.').collect();
                        segments[..segments.len() - 1].contains(&name)
                    };
                    let mut is_own = false;
                    for path in relations.keys().filter(ends_here) {
                        is_own = true;
                        match &relations[path] {
                            None => return self.everything(),
                            Some(targets) => reached.extend(targets.iter().cloned()),
                        }
                    }
                    is_relation |= is_own;
                    if has_fields && (!is_own || relations.keys().any(passes)) {
                        same.insert(around.clone());
                    }
                }
                if !is_relation {
                    return Around::Types(types.clone(), vec![]);
                }
                self.needed.extend(reached.iter().map(|name| format!("{name}:read")));
                reached.extend(same);
                Around::Types(reached, vec![])
            }
        }
    }
}

fn naively_needed(schema: &Schema, text: &str, is_v2: bool) -> BTreeSet<String> {
    let document = query::parse_query::<&str>(text).unwrap();
    let mut naive = Naive { schema, fragments: BTreeMap::new(), is_v2, needed: BTreeSet::new() };
    for definition in &document.definitions {
        if let query::Definition::Fragment(fragment) = definition {
            naive.fragments.insert(fragment.name, fragment);
        }
    }
    for definition in &document.definitions {
        match definition {
            query::Definition::Fragment(fragment) => naive.fragment(fragment),
            query::Definition::Operation(query::OperationDefinition::SelectionSet(set)) => {
                naive.walk(set, &Around::Root);
            }
            query::Definition::Operation(query::OperationDefinition::Query(operation)) => {
                naive.walk(&operation.selection_set, &Around::Root);
            }
            query::Definition::Operation(query::OperationDefinition::Mutation(operation)) => {
                naive.needed.insert("mutation".to_owned());
                naive.walk(&operation.selection_set, &Around::Everything);
            }
            query::Definition::Operation(query::OperationDefinition::Subscription(_)) => {
                unreachable!("none is generated");
            }
        }
    }
    naive.needed
}

fn registered(schema: &Schema) -> Resources {
    let relation = |targets: &Option<BTreeSet<String>>| match targets {
        None => Relation::Any("*".to_owned()),
        Some(targets) => Relation::Some(targets.iter().cloned().collect()),
    };
    let resources: Vec<latchkey_protocol::Resource> = schema
        .iter()
        .map(|(name, relations)| latchkey_protocol::Resource {
            name: name.clone(),
            relations: relations
                .iter()
                .map(|(f, targets)| (f.clone(), relation(targets)))
                .collect(),
        })
        .collect();
    Resources::new(&resources)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// What a document needs is what a second implementation finds, field by field.
    #[test]
    fn needed_rights_are_the_union_over_the_fields(schema in schema(), text in documents()) {
        let profile = Profile::parse(SHIPPED[0].1).unwrap();
        let resources = registered(&schema);
        let mut tokens = MAX_TOKENS;
        let document = Document::parse(&text, &mut tokens).unwrap();
        let documents = [document];
        for (path, is_v2) in [("/api/graphql", false), ("/api/v2/graphql", true)] {
            let endpoint = endpoint(&profile, path);
            let needed = needed_by(&documents, endpoint, &resources, Permission::Allow);
            let needed: BTreeSet<String> = needed
                .into_iter()
                .flatten()
                .map(|needed| match needed.requirement {
                    Requirement::Kind(_) => "mutation".to_owned(),
                    Requirement::Right(right) => right.to_string(),
                })
                .collect();
            prop_assert_eq!(needed, naively_needed(&schema, &text, is_v2), "{} {}", path, text);
        }
    }

    /// Published parsers see the same in whatever is accepted.
    #[test]
    fn generated_documents_are_read_alike(text in documents()) {
        prop_assert_eq!(problem(&text), None);
        oracle::check(&text);
    }

    /// The same of texts that are documents almost.
    #[test]
    fn almost_documents_are_read_alike(
        parts in prop::collection::vec(select(&[
            "{", "}", "(", ")", "[", "]", "...", "on", "query", "mutation", "fragment", "F", "a", ":", "$",
            "@", "!", "=", "|", "&", "1", "-", ".5", "0", "e1", "\"s\"", "\"", "\"\"\"", "\\", "#", "\n", "\r",
            ",", " ", "\u{feff}", "true", "null", "\t", "_b", "ä",
        ][..]), 0..24),
    ) {
        oracle::check(&parts.concat());
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        oracle::check(&text);
    }
}
