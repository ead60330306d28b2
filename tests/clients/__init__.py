"""The clients that users of each dialect have, against a real server. docs/compatibility.md lists these tests."""
