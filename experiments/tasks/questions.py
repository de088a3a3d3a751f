"""Questions over many subjects, for tone.py: lists of subjects, and templates for each."""

import random

#: Per kind: templates, and the subjects that fill them. A subject is used with up to three templates.
KINDS = {
    "devices": (
        ["How does {} work?", "What is {} good for?", "Who would need {}?"],
        """a compass|a refrigerator|a microwave oven|a pendulum clock|a bicycle gear|a steam engine|a windmill
        a thermometer|a telescope|a sewing machine|a zip fastener|a fire extinguisher|a lighthouse|a pressure cooker
        a barometer|a water pump|a light bulb|a loudspeaker|a camera lens|a hearing aid|a solar panel|a battery
        an electric kettle|a vacuum flask|a combination lock|a parachute|a hot-air balloon|a submarine|a sundial
        a typewriter|a printing press|a music box|a spirit level|a seat belt|a smoke detector|a heat pump
        a ballpoint pen|a stethoscope|a metal detector|a canal lock|a loom|a pulley|a diving suit|a snow plough""",
    ),
    "tasks": (
        ["How do I {}?", "Can you give me a tip on how to {}?", "What is the easiest way to {}?"],
        """boil an egg|sharpen a kitchen knife|remove a coffee stain|plant tomatoes|learn to swim|fold a shirt
        write a thank-you letter|save electricity at home|fall asleep faster|repair a flat tyre|clean a window
        keep bread fresh|train a puppy|start a vegetable garden|make a paper boat|tie a tie|pack a suitcase
        remember names|prepare for an exam|make friends in a new town|cook rice|paint a fence|iron a blouse
        stay warm in winter|speak in front of a crowd|read faster|build a bird house|choose a good melon
        clean a leather shoe|polish silver|make a budget|keep a diary|stop a nosebleed|care for a cactus
        get rid of hiccups|grow basil indoors|learn a poem by heart|organise a small party|cross a busy street
        wash a wool jumper|hang a picture straight|brew good tea|find the north star|write a short story
        quit biting my nails|improve my handwriting|feed birds in winter|draw a horse|bake a simple cake
        store potatoes|make soup from leftovers|protect a bicycle from thieves|learn to juggle|calm a crying baby""",
    ),
    "ideas": (
        ["What is {}?", "Can you explain {} in simple words?", "Why does {} matter?"],
        """gravity|photosynthesis|inflation|democracy|friction|evolution|a vaccine|supply and demand|electricity
        a black hole|the water cycle|an ecosystem|a fraction|probability|the alphabet|a metaphor|biodiversity
        an earthquake|the Renaissance|the printing revolution|a virus|a volcano|magnetism|recycling|a solar eclipse
        the speed of light|a chemical reaction|an atom|the ozone layer|a constitution|insurance|interest on a loan
        a prime number|the food chain|erosion|a glacier|the tide|a comet|plate tectonics|a symphony|a haiku
        body language|the immune system|DNA|a calorie|public transport|a census|a proverb|a hypothesis|archaeology""",
    ),
    "animals": (
        ["What do {} eat?", "Where do {} live?", "What is special about {}?"],
        """owls|penguins|dolphins|hedgehogs|camels|bees|octopuses|elephants|squirrels|salmon|bats|foxes|ants
        kangaroos|frogs|snails|wolves|parrots|turtles|crows|giraffes|sharks|butterflies|beavers|otters|spiders
        flamingos|moles|seals|storks|lizards|eagles|badgers|jellyfish|donkeys|goats|peacocks|swans|crabs|koalas
        polar bears|sea horses|woodpeckers|starfish|reindeer|cheetahs|pigeons|eels""",
    ),
    "places": (
        ["What can I see in {}?", "What is {} known for?", "When is a good time to visit {}?"],
        """Rome|Norway|the Sahara|Kyoto|Iceland|Lisbon|the Alps|New Zealand|Istanbul|Scotland|Peru|Venice|Kenya
        Prague|the Amazon|Canada|Vienna|Greece|Morocco|Amsterdam|the Grand Canyon|India|Edinburgh|Cuba|Hawaii
        Copenhagen|Egypt|the Black Forest|Ireland|Vietnam|Barcelona|Switzerland|Nepal|Berlin|Mexico|Sicily
        Budapest|Tasmania|Jordan|Stockholm|Chile|the Lake District|Dublin|Madagascar""",
    ),
    "pairs": (
        ["What is the difference between {}?", "How can I tell {} apart?"],
        """a frog and a toad|jam and jelly|a hill and a mountain|weather and climate|a lake and a pond|tea and coffee
        a violin and a viola|a moth and a butterfly|salt and sugar|a novel and a short story|baking and roasting
        a crocodile and an alligator|a comet and an asteroid|stone and concrete|silk and cotton|a ship and a boat
        a fruit and a vegetable|a planet and a star|speed and acceleration|mass and weight|an ape and a monkey
        a rabbit and a hare|a city and a village|butter and margarine|a simile and a metaphor|oats and barley
        a canal and a river|rain and drizzle|a wasp and a bee|a raven and a crow|paper and cardboard
        a pen and a pencil|a cold and the flu|copper and bronze|gas and steam|a sofa and a chair""",
    ),
    "reasons": (
        ["Why {}?", "My child asks me: why {}?"],
        """is the sky blue|do leaves turn yellow in autumn|does bread rise|do we dream|is the sea salty
        do cats purr|does ice float|do onions make us cry|do birds migrate|is the moon sometimes a crescent
        does metal rust|do we yawn|do stars twinkle|does milk turn sour|do dogs wag their tails|is snow white
        does thunder follow lightning|do bees build hexagons|do we need sleep|does the wind blow|do shoes wear out
        does a ball bounce|do mirrors fog up in the bathroom|do flowers smell|does a spoon look bent in water
        do fingers wrinkle in water|does a cat land on its feet|do magnets stick to a fridge|does popcorn pop
        do trees have rings|does a balloon shrink in the cold|do we get goose bumps|does coffee keep us awake
        do bubbles burst|is it colder on a mountain|do owls hunt at night|does a clock tick|do apples turn brown""",
    ),
    "foods": (
        ["What goes well with {}?", "How is {} made?", "Is {} healthy?"],
        """cheese|yogurt|olive oil|chocolate|pasta|honey|vinegar|mustard|tofu|peanut butter|marmalade|ketchup
        apple cider|pizza|sourdough bread|ice cream|sauerkraut|soy sauce|porridge|maple syrup|lemonade|hummus
        mashed potato|cinnamon tea|beef stew|tomato soup|pickled cucumber|rice pudding|dark bread|smoked fish
        fruit salad|coconut milk|roast chicken|pumpkin pie|mint tea|a pancake|an omelette|a baked potato""",
    ),
    "hobbies": (
        ["How do I start with {}?", "What do I need for {}?", "What is nice about {}?"],
        """chess|knitting|bird watching|photography|hiking|pottery|fishing|origami|rowing|stamp collecting|stargazing
        woodworking|running|calligraphy|gardening|singing in a choir|playing the guitar|sailing|camping|yoga
        learning a language|keeping bees|cycling|watercolour painting|table tennis|model railways|cooking at home
        rock climbing|reading poetry|skating|swimming in lakes|playing the piano|juggling|geocaching|baking
        volunteering|dancing|crossword puzzles|horse riding|writing letters""",
    ),
    "work": (
        ["What does {} do all day?", "How does one become {}?", "What makes {} good at the job?"],
        """a librarian|a baker|a nurse|an architect|a carpenter|a journalist|a pilot|a farmer|a judge|a translator
        a surgeon|a plumber|a gardener|a bus driver|a chemist|a firefighter|a tailor|a dentist|a teacher
        a beekeeper|an electrician|a conductor|a fisherman|a geologist|a cook|a museum guide|a blacksmith
        a veterinarian|a postman|a lighthouse keeper|a shepherd|an accountant|a florist|a watchmaker|a potter""",
    ),
}


def subjects(text):
    return [subject.strip() for line in text.splitlines() for subject in line.split("|")]


def questions(seed=0):
    """All questions in a random order: pairs of (subject, question), three of most subjects."""
    stream = random.Random(seed)
    found = []
    for templates, text in KINDS.values():
        for subject in subjects(text):
            for template in stream.sample(templates, min(3, len(templates))):
                found.append((subject, template.format(subject)))
    stream.shuffle(found)
    return found


def split(sizes, seed=0):
    """Lists of these lengths, no subject in two of them."""
    found = questions(seed)
    names = list(dict.fromkeys(subject for subject, _ in found))
    by_subject = {name: [question for subject, question in found if subject == name] for name in names}
    lists, names = [], iter(names)
    for size in sizes:
        chosen = []
        while len(chosen) < size:
            chosen += by_subject[next(names)][: size - len(chosen)]
        lists.append(chosen)
    return lists
