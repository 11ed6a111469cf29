"""Example texts: a word, and sentences in which it has several senses."""

EXAMPLES = {
    "bank": """\
We sat on the bank of the river and watched the boats.
The bank lent him the money for the house.
She put her savings into the bank every week.
The boat was tied to a tree on the left bank.
The robbers broke into the bank at night.
Wild flowers grew along the bank of the stream.
The bank closed its doors, and many people lost their money.
They climbed up the steep bank and looked down at the water.""",
    "play": """\
The children play in the garden after school.
She wrote a play in three acts for the new theatre.
The boys used to play at ball in the street.
The actors read the play aloud before the first night.
He could play the violin when he was six.
The last act of the play was the best.
Will you play us a song on the piano?
The audience left the theatre before the play was over.""",
    "right": """\
He raised his right hand and swore to tell the truth.
Every man has a right to speak his mind.
You were right, and I was wrong.
She turned to the right at the end of the street.
They fought for the right to vote.
The answer was right, but nobody believed her.
His right arm was broken in the fall.
The king had no right to their land.""",
    "light": """\
The light of the candle fell upon the wall.
She carried a light basket on her arm.
He opened the window to let in the light.
The box was so light that a child could lift it.
A light rain fell in the evening.
The light of the moon shone on the water.
They ate a light supper and went to bed.
We saw a light in the distance.""",
    "spring": """\
The birds come back to the garden every spring.
They drank cold water from the spring in the rocks.
In the spring the snow melts and the flowers appear.
The spring of the clock was broken.
A spring of clear water rose at the foot of the hill.
We shall marry in the spring of next year.
He pressed the spring, and the lid of the box flew open.
Last spring they planted roses along the wall.""",
    "left": """\
She left the room without a word.
He held the letter in his left hand.
They left the town early in the morning.
The house stands on the left side of the road.
My father left Paris when he was twenty.
She wore a ring on her left hand.
He left his wife and children at home.
The path to the left leads down to the river.""",
}
