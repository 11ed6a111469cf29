"""Names that people can read for sense keys such as play%1:04:05::."""

# The lexicographer files of WordNet, by the second number of a key.
FILES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling"),
    *("noun.food", "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person"),
    *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity", "noun.relation"),
    *("noun.shape", "noun.state", "noun.substance", "noun.time", "verb.body", "verb.change"),
    *("verb.cognition", "verb.communication", "verb.competition", "verb.consumption", "verb.contact"),
    *("verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession", "verb.social"),
    *("verb.stative", "verb.weather", "adj.ppl"),
)
# Short words of ours for the senses of the word that is drawn if no other is asked for.
MEANINGS = {
    "play%1:04:05::": "noun: a move of the game",
    "play%1:10:01::": "noun: a drama, as a text",
    "play%1:10:03::": "noun: a drama, on the stage",
    "play%2:33:00::": "verb: take part in a game",
    "play%2:36:12::": "verb: play music",
    "play%2:41:03::": "verb: be at play, as children are",
    "play%2:41:12::": "verb: have a part or an effect",
}


def sense_name(key: str) -> str:
    """play%1:04:04:: -> noun.act"""
    file = int(key.split("%")[1].split(":")[1])
    return MEANINGS.get(key) or (FILES[file] if file < len(FILES) else key)
