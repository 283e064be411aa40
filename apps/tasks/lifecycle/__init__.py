"""The only writers of `Task.state`: each move is one statement that names where it may start and says who won."""
