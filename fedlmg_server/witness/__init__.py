"""The witness: do clients call the classes what everybody calls them?"""
