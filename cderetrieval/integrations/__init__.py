"""A retriever in the tools that people already have: LangChain, LlamaIndex, Haystack, and programs that speak MCP.

Each module imports its framework, and names the command that installs it where it is missing.
"""
