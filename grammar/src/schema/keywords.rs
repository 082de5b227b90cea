//! The keywords of JSON Schema, and what is done with each.

/// What the value of a keyword is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// A schema.
    Schema,
    /// A list of schemas.
    Schemas,
    /// A schema, or a list of them.
    SchemaOrList,
    /// Schemas by the names of properties.
    Properties,
    /// Schemas by expressions that names of properties match.
    Patterns,
    /// Schemas by names that references use.
    Definitions,
    /// Values that are allowed.
    Values,
    /// The value that is allowed.
    Value,
    /// A number that others are held against.
    Bound,
    /// An expression.
    Expression,
    /// Where another schema stands.
    Reference,
    /// What a number is a multiple of.
    Multiple,
    /// How many of something there may be.
    Count,
    /// Which draft it is of.
    Draft,
    /// A bound, a type, a format: the compiler reads it.
    Plain,
    /// Says nothing of what is allowed.
    Annotation,
    /// Not honoured.
    Refused,
}

/// Keywords of each kind; all other names are annotations.
const KEYWORDS: [(Keyword, &[&str]); 16] = [
    (Keyword::Schema, &["additionalProperties", "additionalItems"]),
    (Keyword::Schemas, &["allOf", "anyOf", "oneOf", "prefixItems"]),
    (Keyword::SchemaOrList, &["items"]),
    (Keyword::Properties, &["properties"]),
    (Keyword::Patterns, &["patternProperties"]),
    (Keyword::Definitions, &["$defs", "definitions"]),
    (Keyword::Values, &["enum"]),
    (Keyword::Value, &["const"]),
    (Keyword::Bound, &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    (Keyword::Expression, &["pattern"]),
    (Keyword::Reference, &["$ref"]),
    (Keyword::Multiple, &["multipleOf"]),
    (Keyword::Draft, &["$schema"]),
    (
        Keyword::Count,
        &["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"],
    ),
    (Keyword::Plain, &["type", "format", "required", "$id", "id", "$anchor"]),
    (
        Keyword::Refused,
        &[
            "not",
            "if",
            "then",
            "else",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
            "propertyNames",
            "dependencies",
            "dependentRequired",
            "dependentSchemas",
            "unevaluatedItems",
            "unevaluatedProperties",
            "contentSchema",
            "$dynamicRef",
            "$dynamicAnchor",
            "$recursiveRef",
            "$recursiveAnchor",
            "$vocabulary",
            "nullable",
            "discriminator",
            "x-guidance",
        ],
    ),
];

/// What a name is.
pub fn keyword(name: &str) -> Keyword {
    let found = KEYWORDS.iter().find(|(_, names)| names.contains(&name));
    found.map_or(Keyword::Annotation, |(keyword, _)| *keyword)
}

/// Keywords of JSON Schema that are honoured, and those that are refused by name. All others
/// are annotations, and ask for nothing.
pub fn schema_keywords() -> (Vec<&'static str>, Vec<&'static str>) {
    let names = |refused: bool| {
        let kinds = KEYWORDS.iter().filter(|(kind, _)| (*kind == Keyword::Refused) == refused);
        kinds.flat_map(|(_, names)| *names).copied().collect()
    };
    (names(false), names(true))
}
