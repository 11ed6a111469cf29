"""A rule for coreference: names that share their last word, and pronouns that mean the nearest name."""

METHOD = "a rule: names by equal last words, repeated noun phrases, pronouns to the nearest fitting name"
Mention = tuple[int, int, int]
HE, SHE = {"he", "him", "his", "himself"}, {"she", "her", "hers", "herself"}
ME, YOU = {"i", "me", "my", "mine", "myself"}, {"you", "your", "yours", "yourself"}
IT, THEY = {"it", "its", "itself"}, {"they", "them", "their", "theirs", "themselves"}
WE = {"we", "us", "our", "ours", "ourselves"}
GROUPS = {"he": HE, "she": SHE, "i": ME, "you": YOU, "it": IT, "they": THEY, "we": WE}
PRONOUNS = {word: name for name, words in GROUPS.items() for word in words}
FEMALE = {"mrs", "mrs.", "miss", "lady", "madam", "mother", "sister", "aunt", "daughter", "queen", "wife"}
DETERMINERS = {"the", "this", "that", "his", "her", "my", "their", "our", "your"}
STOPWORDS = {
    "the", "a", "an", "and", "but", "of", "in", "on", "to", "i", "he", "she", "it", "they", "we", "you",
}  # fmt: skip


def clusters_of(sentences: list[list[str]]) -> list[list[Mention]]:
    clusters: dict[str, list[Mention]] = {}
    last: dict[str, str] = {}  # the cluster that a pronoun of each group means next
    for number, words in enumerate(sentences):
        for first, end, key in mentions(words):
            if key in PRONOUNS.values():
                cluster = last.get(key, key)
                if key == "she" and key not in last:
                    cluster = last[key] = last.get("name", key)
            else:
                cluster = f"={key}"
                if not key.startswith("the "):
                    last["name"] = cluster
                    last["she" if words[first].lower() in FEMALE else "he"] = cluster
                    if words[first].lower() not in FEMALE:
                        last.pop("she", None)  # the name may be a woman's
            clusters.setdefault(cluster, []).append((number, first, end))
    return [cluster for cluster in clusters.values() if len(cluster) > 1]


def mentions(words: list[str]) -> list[tuple[int, int, str]]:
    """First word, last word and key of pronouns, names, and a determiner with a noun."""
    result, place = [], 0
    while place < len(words):
        word = words[place].lower()
        end = place
        if word in PRONOUNS:
            result.append((place, place, PRONOUNS[word]))
        elif is_name(words, place):
            while end + 1 < len(words) and is_name(words, end + 1):
                end += 1
            result.append((place, end, words[end].lower()))
        elif word in DETERMINERS and place + 1 < len(words) and words[place + 1].isalpha():
            end = place + 1
            result.append((place, end, f"the {words[end].lower()}"))
        place = end + 1
    return result


def is_name(words: list[str], place: int) -> bool:
    word = words[place]
    is_capital = word[:1].isupper() and word[1:].islower() and word.lower() not in STOPWORDS
    starts = place == 0 or words[place - 1] in ('"', "“", "''", "``", "'")
    return is_capital and (not starts or (place + 1 < len(words) and words[place + 1][:1].isupper()))
