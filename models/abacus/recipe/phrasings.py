"""The words of the training data: questions, names, things, small talk and refusals.

Nothing here computes. `{a}`, `{b}`, `{c}` are operands, `{e}` a whole expression, `{n}` and `{m}`
names, `{t}` things that can be counted.
"""

# Every list of questions holds terse, spoken and formal ones, because a phrasing that training has
# not shown is the first thing a small model gets wrong.
EXPRESSION = [
    "{e}", "{e} =", "{e} = ?", "{e}=", "{e}?", "What is {e}?", "What's {e}?", "what is {e}", "whats {e}", "Calculate {e}.",
    "Compute {e}.", "Evaluate {e}.", "Work out {e}.", "Solve {e}.", "Solve: {e}", "How much is {e}?", "Tell me {e}.",
    "Can you work out {e}?", "Could you tell me what {e} is?", "Do you know what {e} is?", "I need to know {e}.",
    "What does {e} equal?", "What does {e} make?", "What does {e} come to?", "Give me {e}.", "Find {e}.",
    "What is the value of {e}?", "What is the result of {e}?", "What do you get for {e}?", "{e} equals what?",
    "{e} is what?", "Q: {e}", "Help me with {e}.", "My homework says {e}. What is the answer?", "Quick question: {e}",
    "How about {e}?", "Next: {e}", "and {e}?", "Try {e}.", "Do {e}.", "Answer this: {e}",
]

ADD = [
    "Add {a} and {b}.", "Add {a} to {b}.", "Add {b} to {a}.", "What is {a} plus {b}?", "{a} plus {b}", "What's {a} plus {b}?",
    "What is the sum of {a} and {b}?", "Find the sum of {a} and {b}.", "Sum of {a} and {b}", "Sum {a} and {b}.",
    "What is the total of {a} and {b}?", "How much do {a} and {b} make?", "How much is {a} and {b} together?",
    "What do you get when you add {a} and {b}?", "If I add {a} and {b}, what do I get?", "What is {b} more than {a}?",
    "What number is {b} more than {a}?", "Increase {a} by {b}.", "{a} increased by {b}", "What does {a} plus {b} equal?",
    "Put {a} and {b} together.", "Calculate the sum of {a} and {b}.", "Can you add {a} and {b}?", "Could you add {a} and {b} for me?",
    "I want to add {a} and {b}.", "{a} and {b} make how much?", "{a} added to {b} is what?", "Combine {a} and {b}.",
    "Start with {a} and add {b}.", "Please compute {a} plus {b}.",
]

SUBTRACT = [
    "Subtract {b} from {a}.", "Take {b} from {a}.", "Take {b} away from {a}.", "What is {a} minus {b}?", "{a} minus {b}",
    "What's {a} minus {b}?", "What is {a} less {b}?", "What is {b} less than {a}?", "What number is {b} less than {a}?",
    "Decrease {a} by {b}.", "Reduce {a} by {b}.", "What is left if I take {b} from {a}?", "What does {a} minus {b} equal?",
    "Start with {a} and take away {b}.", "Can you subtract {b} from {a}?", "If I take {b} from {a}, what is left?",
    "{a} take away {b}", "{a} reduced by {b}", "Please compute {a} minus {b}.", "What do you get when you subtract {b} from {a}?",
]

MULTIPLY = [
    "Multiply {a} by {b}.", "Multiply {a} and {b}.", "What is {a} times {b}?", "{a} times {b}", "What's {a} times {b}?",
    "{a} multiplied by {b}", "What is {a} multiplied by {b}?", "What is the product of {a} and {b}?", "Find the product of {a} and {b}.",
    "Product of {a} and {b}", "What does {a} times {b} equal?", "How much is {a} times {b}?", "Can you multiply {a} by {b}?",
    "Please compute {a} times {b}.", "If I multiply {a} by {b}, what do I get?",
]

DIVIDE = [
    "Divide {a} by {b}.", "What is {a} divided by {b}?", "{a} divided by {b}", "What's {a} divided by {b}?", "How many times does {b} go into {a}?",
    "Split {a} into {b} equal parts.", "What is the quotient of {a} and {b}?", "How many {b}s are in {a}?", "What is {a} over {b}?",
    "Share {a} equally among {b}.", "Can you divide {a} by {b}?", "Please compute {a} divided by {b}.",
]

# Questions that go on from the last answer, with the operation each asks for.
FOLLOW_UP = [
    ("+", "Now add {b}."), ("+", "Add {b} to that."), ("+", "Plus {b}?"), ("+", "And {b} more?"), ("+", "and if I add {b}?"),
    ("-", "Now subtract {b}."), ("-", "Take {b} from that."), ("-", "Minus {b}?"), ("-", "And {b} less?"), ("-", "and if I take away {b}?"),
]

# One-step stories: the operation, the story.
STORY = [
    ("+", "{n} has {a} {t} and gets {b} more. How many {t} does {n} have?"),
    ("+", "{n} has {a} {t}. {m} gives {n} {b} more. How many {t} does {n} have now?"),
    ("+", "I have {a} {t} and buy {b} more. How many do I have?"),
    ("+", "There are {a} {t} in one box and {b} in another. How many {t} are there in all?"),
    ("+", "{n} has {a} {t} and {m} has {b}. How many do they have together?"),
    ("+", "If I have {a} {t} and find {b} more, how many do I have?"),
    ("-", "{n} has {a} {t} and gives away {b}. How many are left?"),
    ("-", "{n} had {a} {t} and lost {b}. How many {t} does {n} have now?"),
    ("-", "I have {a} {t} and give {b} to {m}. How many are left?"),
    ("-", "I have {a} apples and eat {b}. How many are left?"),
    ("-", "There were {a} {t} on the table. {n} took {b}. How many remain?"),
    ("-", "A shop has {a} {t} and sells {b}. How many {t} are left?"),
    ("-", "{n} has {a} {t} and {m} has {b}. How many more does {n} have?"),
    ("*", "There are {a} boxes with {b} {t} each. How many {t} are there?"),
    ("*", "{n} buys {a} bags of {b} {t}. How many {t} is that?"),
    ("*", "I have {a} rows of {b} {t}. How many {t} do I have?"),
    ("/", "{n} shares {a} {t} equally among {b} friends. How many does each get?"),
    ("/", "{a} {t} are put into {b} boxes, the same number in each. How many {t} are in one box?"),
]

# Two-step stories: both operations, in the order in which the story tells them.
LONG_STORY = [
    ("++", "{n} has {a} {t}. {m} gives {n} {b} more, and then {n} finds {c}. How many {t} does {n} have now?"),
    ("++", "{n} has {a} {t}, {m} has {b} and a friend has {c}. How many {t} do they have together?"),
    ("++", "There are {a} red, {b} blue and {c} green {t}. How many {t} are there in all?"),
    ("++", "I had {a} {t}. I bought {b} more on Monday and {c} more on Friday. How many do I have?"),
    ("+-", "{n} has {a} {t}, buys {b} more and gives {c} to {m}. How many {t} does {n} have left?"),
    ("+-", "{n} had {a} {t}. {n} got {b} more and then lost {c}. How many are left?"),
    ("+-", "There are {a} people on a bus. {b} get on and {c} get off. How many are on the bus now?"),
    ("+-", "A shop has {a} {t}. It gets {b} more and sells {c}. How many {t} are in the shop?"),
    ("+-", "I have {a} {t}, find {b} and give away {c}. How many do I have left?"),
    ("+-", "If {n} has {a} {t}, makes {b} more and sells {c}, how many {t} remain?"),
    ("-+", "{n} has {a} {t}, gives {b} to {m} and then buys {c}. How many {t} does {n} have?"),
    ("-+", "{n} had {a} {t}, lost {b} and found {c}. How many {t} does {n} have now?"),
    ("-+", "There are {a} people on a bus. {b} get off and {c} get on. How many are on the bus now?"),
    ("-+", "A shop has {a} {t}. It sells {b} and gets {c} more. How many {t} are in the shop?"),
    ("-+", "I have {a} {t}. I use {b} and buy {c}. How many do I have?"),
    ("--", "{n} has {a} {t} and gives {b} to {m} and {c} to a friend. How many are left?"),
    ("--", "A box holds {a} {t}. {n} takes {b} and {m} takes {c}. How many {t} remain?"),
    ("--", "I had {a} {t}. I lost {b} and sold {c}. How many do I have left?"),
    ("--", "A shop has {a} {t}. It sells {b} on Monday and {c} on Friday. How many are left?"),
]

NAMES = [
    "Ada", "Ben", "Carla", "Dan", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jack", "Kim", "Leo", "Maria", "Nina", "Omar", "Paul",
    "Rosa", "Sam", "Tom", "Uma", "Vera", "Will", "Yuki", "Zoe", "Anna", "Bob", "Alice", "John", "Mia", "Lucas",
]

THINGS = [
    "apples", "pears", "books", "pens", "pencils", "cards", "coins", "marbles", "stamps", "shells", "eggs", "cookies", "balls", "cups",
    "flowers", "oranges", "stickers", "stones", "toys", "candies", "buttons", "tickets", "keys", "cakes", "lemons", "plates",
]

# Manners of asking; the empty one is the common one.
BEFORE = ["Please ", "Hey, ", "Hi! ", "OK, ", "Hello. ", "Abacus, ", "So, "]
AFTER = [" Thanks!", " Thank you.", " please", ", please"]

WORKED = [" Show your working.", " Show the steps.", " Step by step, please.", " Explain how.", " Think step by step."]
NUMBER = [" Just the number.", " Only the number, please.", " Answer with the number only.", " Number only."]
JSON = [" Answer in JSON.", " Reply in JSON.", " As JSON, please.", ' Use the form {"answer": number}.']

SYSTEM = [
    "You are Abacus.", "You are Abacus, a tiny language model that does small sums.", "You are a helpful assistant.",
    "You are a calculator.", "You help with arithmetic.", "You are a maths tutor.", "Be brief.", "Answer the user's questions.",
]

# Small talk: what may be said, what may be answered.
CHAT = [
    (["Hi", "Hi!", "Hello", "Hello!", "Hey", "Hey!", "Hey there", "Hi there!", "Good morning", "Good morning!", "Good evening!",
      "Good afternoon", "Hello Abacus", "hello there", "yo", "Greetings", "howdy"],
     ["Hello! I am Abacus. Ask me a sum.", "Hi! What shall I add up?", "Hello! Which sum can I do for you?"]),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?", "Tell me about yourself.", "Introduce yourself.",
      "Are you a robot?", "Are you a person?", "Are you an AI?", "Are you human?", "Hey, who are you?", "Who am I talking to?",
      "Are you ChatGPT?", "What model are you?", "What kind of model are you?", "who made you?", "Who built you?"],
     ["I am Abacus, a tiny language model that does small sums.", "I am Abacus, a very small language model for arithmetic."]),
    (["What can you do?", "what can you do", "What can you do for me?", "How can you help me?", "What are you good at?", "Help", "Help!", "help me",
      "Can you help me?", "What do you know?", "What should I ask you?", "What can I ask?", "What is this?", "How do you work?",
      "Tell me what you can do.", "What are your skills?", "How do I use you?"],
     ["I can add, subtract, multiply and divide small whole numbers. Try: What is 27 + 15?",
      "I do small sums, short word problems, and I can call a calculator tool. Try: What is 27 + 15?"]),
    (["Thanks", "Thanks!", "Thank you", "Thank you!", "Thanks a lot!", "Great, thanks", "thx", "Thank you very much.", "Cheers"],
     ["You are welcome!", "You are welcome. Another sum?"]),
    (["Bye", "Bye!", "Goodbye", "Goodbye!", "See you", "See you later!", "Good night", "That is all.", "I have to go."],
     ["Goodbye!", "Goodbye! Come back with more sums."]),
    (["How are you?", "How are you today?", "How is it going?", "How do you do?", "What's up?", "Are you well?", "how are you doing"],
     ["I am well, thank you. Which sum shall I do?", "Ready for sums!"]),
    (["OK", "ok", "Good", "Great!", "Nice", "Well done", "Well done!", "Cool", "I see", "Wow", "Good job!", "That is right.", "Correct!", "yes", "no"],
     ["Another sum?", "Good. What is next?"]),
    (["That is wrong.", "You are wrong.", "Are you sure?", "No, that is wrong.", "I think you made a mistake.", "Wrong!"],
     ["I may be wrong: I am a very small model. Please check with a calculator."]),
    (["Can you add?", "Can you do sums?", "Can you do maths?", "Do you know arithmetic?", "Can you count?", "Are you good at math?", "Can you multiply?",
      "Let's do some math.", "I need help with my homework.", "I have a question.", "Can I ask you something?", "Can you calculate?"],
     ["Yes, with small whole numbers. Try: What is 27 + 15?"]),
]

# What Abacus does not know about; `{x}` is one of `TOPICS`.
OTHER = [
    "Tell me about {x}.", "What do you know about {x}?", "Write a poem about {x}.", "Write a story about {x}.", "Explain {x}.",
    "What is {x}?", "Can you explain {x} to me?", "Who invented {x}?", "Give me a summary of {x}.", "Why is {x} important?",
    "How does {x} work?", "Write an essay about {x}.", "Tell me a joke about {x}.", "I want to talk about {x}.", "Is {x} good?",
    "Where can I find {x}?", "What do you think about {x}?", "Help me understand {x}.", "Do you like {x}?", "What is the history of {x}?",
    "Write code for {x}.", "Translate {x} into French.", "Draw {x}.", "Let's discuss {x}.", "I have a question about {x}.",
]
TOPICS = [
    "black holes", "the moon", "France", "the French revolution", "cats", "dogs", "music", "football", "the weather", "Python", "Rust",
    "history", "love", "physics", "cooking", "the stock market", "computers", "the sun", "London", "Paris", "Germany", "China", "dinosaurs",
    "chess", "poetry", "Shakespeare", "politics", "religion", "movies", "trees", "the ocean", "DNA", "medicine", "space", "art", "birds",
    "machine learning", "neural networks", "the internet", "money", "the president", "bread", "chocolate", "coffee", "war", "a sorting algorithm",
    "the meaning of life", "philosophy", "quantum mechanics", "the universe", "a good book", "my dog", "cars", "trains", "volcanoes", "Rome",
]
OTHER_FIXED = [
    "What is the capital of France?", "What is the capital of Japan?", "Tell me a joke.", "Tell me a story.", "Write a poem.", "Sing a song.",
    "What is the weather today?", "What time is it?", "What day is it?", "Who is the president?", "How old are you?", "Where are you from?",
    "What is the meaning of life?", "Say something in Spanish.", "Do you speak French?", "Write a haiku.", "What should I eat?", "How do I cook rice?",
    "Who won the world cup?", "Recommend a movie.", "What is your favourite colour?", "Are you alive?", "Can you write code?", "Write a program.",
    "How tall is Mount Everest?", "Why is the sky blue?", "Once upon a time", "What is love?", "I am sad.", "Do you love me?", "asdf", "???",
]
REFUSAL = ["I cannot help with that. I am a tiny model for arithmetic.", "Sorry, I only know small sums."]
TOO_BIG = ["That is too big for me. With a calculator tool I could do it."]
NOT_WHOLE = ["I only know whole numbers. With a calculator tool I could do it."]
BY_ZERO = ["Nothing can be divided by zero."]

# Names a calculator tool may have, those its argument may have, and tools that are no calculator.
TOOL_NAMES = ["calculator", "calculator", "calculator", "calculate", "calc", "compute", "evaluate", "math"]
TOOL_ARGUMENTS = ["expression", "expression", "expression", "input", "formula", "query"]
OTHER_TOOLS = [
    ("get_weather", "city"), ("search", "query"), ("send_email", "text"), ("get_time", "zone"), ("translate", "text"), ("read_file", "path"),
]
