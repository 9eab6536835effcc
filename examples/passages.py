"""Split long documents into passages that know their document, and show the passage that answers."""

import fnmatch
import inspect
import shlex

from cderetrieval import DocumentContext, Retriever

MODULES = (fnmatch, shlex)
documents = [{"id": one.__name__, "title": one.__name__, "text": inspect.getsource(one)} for one in MODULES]

retriever = Retriever("all-MiniLM-L6-v2", on=["title", "text"])  # passages="auto"
retriever.add(documents)
for hit in retriever("quote an argument for the shell", k=2, passages=True)[0]:
    passage = hit["passage"]
    print(f"{hit['similarity']:.3f}  {hit['id']}, characters {passage['start']} to {passage['end']}")
    print(passage["text"][:200], end="\n\n")

# Title and headings before each passage: where queries name the document and its passages do not.
strong = Retriever("all-MiniLM-L6-v2", on=["title", "text"], document_context=DocumentContext(lead=0, prefix=32))
strong.add(documents)
print(strong("the translate function of fnmatch", k=3, by="passage").to_frame()[["id", "similarity"]])

# Documents that come split already.
sections = [{"id": "birds", "sections": [{"heading": "Owls", "text": "They hunt at night."}, "Jays hide acorns."]}]
print(Retriever("all-MiniLM-L6-v2", passages="sections").add(sections)("who hunts?", passages=True)[0][0]["passage"])
